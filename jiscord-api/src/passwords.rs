//! Passwords, hashed with argon2id on the blocking pool: at most one job a core, and a bounded queue of those that wait.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version};
use jiscord_core::{Code, Fault, fault::Result, text::Password};
use tokio::sync::{Semaphore, TryAcquireError};

use crate::limits::Limits;

/// What one hash costs. Default: OWASP's choice for argon2id, 19 MiB and two passes in one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cost {
    /// KiB of memory.
    pub memory: u32,
    /// Passes over it.
    pub passes: u32,
}

impl Default for Cost {
    fn default() -> Self {
        Self { memory: Params::DEFAULT_M_COST, passes: Params::DEFAULT_T_COST }
    }
}

/// The dearest stored hash that is verified. A forged one could else ask for gigabytes.
const DEAREST: (u32, u32, u32) = (256 * 1024, 16, 8);
/// Our hashes have about 100 bytes.
const LONGEST: usize = 512;

/// Hashes passwords and verifies them.
pub struct Passwords {
    argon2: Argon2<'static>,
    nobody: Arc<str>,
    admitted: Semaphore,
    running: Arc<Semaphore>,
    jobs: Arc<AtomicU64>,
}

impl Passwords {
    /// With as many jobs at once and as many waiting as `limits` says. Memory and passes that argon2 cannot do are raised
    /// or lowered to what it can.
    pub fn new(cost: Cost, limits: &Limits) -> Self {
        let passes = cost.passes.clamp(Params::MIN_T_COST, DEAREST.1);
        let memory = cost.memory.clamp(Params::MIN_M_COST, DEAREST.0);
        let params = Params::new(memory, passes, 1, None).unwrap_or_default();
        let nobody = nobody(&params);
        let at_once = limits.password_jobs.clamp(1, Semaphore::MAX_PERMITS / 2);
        Self {
            argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            nobody: nobody.into(),
            admitted: Semaphore::new(at_once + limits.password_queue.min(Semaphore::MAX_PERMITS / 2)),
            running: Arc::new(Semaphore::new(at_once)),
            jobs: Arc::default(),
        }
    }

    /// How many argon2 jobs were begun. Whatever must look alike from outside must count alike here.
    pub fn jobs(&self) -> u64 {
        self.jobs.load(Ordering::Relaxed)
    }

    /// A PHC string with a fresh salt. [`Code::BUSY`] if too many wait.
    pub async fn hash(&self, password: Password) -> Result<String> {
        let argon2 = self.argon2.clone();
        let hash = self.job(move || argon2.hash_password(password.expose().as_bytes())).await?;
        hash.map(|hash| hash.to_string()).map_err(internal)
    }

    /// Whether the password is the one of this hash. Without a hash (nobody has that address) or a password (none could
    /// be right), the same work is done and the answer is no. [`Code::BUSY`] if too many wait.
    pub async fn verify(&self, password: Option<Password>, hash: Option<&str>) -> Result<bool> {
        let known = match hash.map(bounded) {
            Some(Err(error)) => {
                tracing::error!(error, "a stored password hash cannot be verified");
                None
            }
            Some(Ok(hash)) => Some(hash),
            None => None,
        };
        let could_be = known.is_some() && password.is_some();
        let Some(hash) = known.or_else(|| PasswordHash::new(&self.nobody).ok()) else { return Ok(false) };
        let argon2 = self.argon2.clone();
        let verified = self
            .job(move || {
                let text = password.as_ref().map_or("", Password::expose);
                argon2.verify_password(text.as_bytes(), &hash)
            })
            .await?;
        match verified {
            Ok(()) => Ok(could_be),
            Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
            Err(error) => Err(internal(error)),
        }
    }

    async fn job<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let _place = self.admitted.try_acquire().map_err(|refused| match refused {
            TryAcquireError::NoPermits => {
                Fault::new(Code::BUSY, "too many log-ins at once; try again").retry_after(Duration::from_secs(1))
            }
            TryAcquireError::Closed => internal(refused),
        })?;
        let turn = self.running.clone().acquire_owned().await.map_err(internal)?;
        self.jobs.fetch_add(1, Ordering::Relaxed);
        // The turn goes with the job: a caller that gives up frees its place in the queue, but not the core.
        let job = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        job.await.map_err(internal)
    }
}

fn internal(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Fault {
    Fault::new(Code::INTERNAL, "internal error").because(error)
}

/// A hash that no password has, since its output is all zeros; verifying against it costs what a real one does.
fn nobody(params: &Params) -> String {
    let (m, t, p) = (params.m_cost(), params.t_cost(), params.p_cost());
    format!("$argon2id$v=19$m={m},t={t},p={p}${salt}${output}", salt = "A".repeat(22), output = "A".repeat(43))
}

fn bounded(hash: &str) -> Result<PasswordHash, &'static str> {
    if hash.len() > LONGEST {
        return Err("it is too long");
    }
    let hash = PasswordHash::new(hash).map_err(|_| "it is no PHC string")?;
    if hash.algorithm != ARGON2ID_IDENT {
        return Err("it is not argon2id's");
    }
    let params = Params::try_from(&hash).map_err(|_| "its parameters cannot be read")?;
    let (m, t, p) = DEAREST;
    if params.m_cost() > m || params.t_cost() > t || params.p_cost() > p {
        return Err("its parameters are out of bounds");
    }
    Ok(hash)
}
