//! One process works on a data folder.

use jiscord_e2e::Deployment;

#[tokio::test]
async fn a_second_server_on_the_same_data_is_refused() {
    let server = Deployment::one(&[]).await;
    let ada = server.register("ada").await;
    let channel = ada.create_channel(&ada.create_guild("Computing").await, "engines").await;
    let mut socket = ada.connect().await;
    for _ in 0..2 {
        let refused = server.start_another().await;
        assert_eq!(refused.status.code(), Some(78));
        let said = String::from_utf8(refused.stderr).unwrap();
        let reasons: Vec<_> = said.lines().collect();
        assert!(reasons.len() == 1 && reasons[0].contains("in use by another process"), "{said}");
        assert_eq!(String::from_utf8(refused.stdout).unwrap(), "");
        // The first one does not notice.
        socket.send(&channel, "hello").await;
        socket.hear("MESSAGE_CREATE").await;
    }
    assert_eq!(ada.history(&channel).await.len(), 2);
}
