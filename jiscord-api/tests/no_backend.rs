//! Alone in its file: a program has one crypto backend, and this one has none that works.

use jiscord_api::tokens::{Jwt, SecretError};
use jsonwebtoken::crypto::{CryptoProvider, KeyUtils};

#[test]
fn a_program_without_crypto_is_told_at_once() {
    static NONE: CryptoProvider = CryptoProvider {
        signer_factory: |_, _| panic!("as jsonwebtoken does where nothing is installed"),
        verifier_factory: |_, _| panic!("as jsonwebtoken does where nothing is installed"),
        key_utils: KeyUtils::new_unimplemented(),
    };
    NONE.install_default().unwrap();
    let error = Jwt::new(&[7; 32]).unwrap_err();
    assert!(matches!(error, SecretError::NoBackend));
    assert!(error.to_string().contains("aws_lc_rs"), "{error}");
}
