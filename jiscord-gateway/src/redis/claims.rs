//! One session a device, across gateways.

use std::time::Duration;

use async_trait::async_trait;
use jiscord_core::{Topic, UserId, fault, frame::Attempt, text::Device};
use redis::{Cmd, Pipeline};

use super::{
    asker::Asker,
    link::{Redis, evalsha},
    scripts,
};
use crate::claims::{Claim, Claimed, Claims, Eviction, Holder};

/// How many claims are refreshed by one pipeline.
const CHUNK: usize = 500;
/// How long the places of a user are remembered after the last sign of a session.
const KEPT: Duration = Duration::from_secs(60 * 60);

/// Claims that all gateways on one Redis share.
pub struct RedisClaims {
    redis: Redis,
    asker: Asker,
    instance: String,
    most: usize,
}

impl RedisClaims {
    /// Nothing is connected yet. `instance` names this gateway among all, `most` is how many devices of a user may have a
    /// session at a time.
    pub fn new(redis: &Redis, instance: impl Into<String>, most: usize) -> Self {
        Self { redis: redis.clone(), asker: Asker::new(redis), instance: instance.into(), most: most.max(1) }
    }

    /// A call of a script about a user's device.
    fn call(&self, script: &redis::Script, user: UserId, device: Option<&Device>) -> Cmd {
        let mut call = evalsha(script, &[self.redis.sessions_key(user)]);
        call.arg(device.map_or("", Device::as_str));
        call
    }

    /// The arguments that claiming and refreshing share.
    fn place(&self, script: &redis::Script, holder: &Holder) -> Cmd {
        let mut call = self.call(script, holder.user, holder.device.as_ref());
        let Attempt { client, number } = holder.attempt;
        call.arg(format!("{} {client} {number}", holder.session)).arg(&self.instance);
        call.arg(self.most).arg(Topic::User(holder.user).to_string()).arg(KEPT.as_secs());
        call
    }
}

#[async_trait]
impl Claims for RedisClaims {
    async fn claim(&self, holder: &Holder, resumes: bool) -> fault::Result<Option<Claimed>> {
        let mut claim = self.place(&scripts::CLAIM, holder);
        claim.arg(u8::from(resumes));
        let mut call = Pipeline::new();
        call.add_command(claim);
        let answers: Vec<Vec<(String, u64)>> = self.asker.ask(&call).await?;
        let evicted = answers.into_iter().flatten().enumerate();
        let evicted = evicted.map(|(n, (device, fence))| {
            let attempt = (n == 0).then_some(holder.attempt);
            Eviction { device: Device::new(&device).ok(), fence, attempt }
        });
        let evicted: Vec<_> = evicted.collect();
        Ok(evicted.first().map(|own| own.fence).map(|fence| Claimed { fence, evicted }))
    }

    async fn release(&self, user: UserId, device: Option<&Device>, fence: u64) -> fault::Result<()> {
        let mut release = self.call(&scripts::RELEASE, user, device);
        release.arg(fence);
        let mut call = Pipeline::new();
        call.add_command(release);
        self.asker.ask::<()>(&call).await.map(drop)
    }

    async fn refresh(&self, own: &[Claim]) -> fault::Result<Vec<usize>> {
        let mut lost = Vec::new();
        for (begin, chunk) in own.chunks(CHUNK).enumerate().map(|(n, chunk)| (n * CHUNK, chunk)) {
            let mut pipeline = Pipeline::new();
            for claim in chunk {
                let mut call = self.place(&scripts::REFRESH, &claim.holder);
                call.arg(claim.fence).arg(u64::try_from(claim.silent.as_micros()).unwrap_or(u64::MAX));
                pipeline.add_command(call);
            }
            let kept: Vec<bool> = self.asker.ask(&pipeline).await?;
            lost.extend(kept.iter().enumerate().filter(|(_, kept)| !**kept).map(|(index, _)| begin + index));
        }
        Ok(lost)
    }
}
