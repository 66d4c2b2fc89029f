//! Reads that wait together are answered by one query, sent after the last of them came: none joins a query already sent,
//! which may not see what its caller just wrote.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use jiscord_core::{ChannelId, UserId, model::Message};
use tokio::{
    sync::{Mutex as AsyncMutex, watch},
    task::{JoinSet, yield_now},
};

use super::{db::Db, keyed::Keyed, rows::AccountRow};
use crate::{
    error::{Error, Result},
    repository::Account,
};

/// An answer for several callers.
type Shared<T> = Result<Arc<T>, Arc<Error>>;

/// The same failure for one more caller.
fn again(error: &Arc<Error>) -> Error {
    match **error {
        Error::Busy => Error::Busy,
        Error::Corrupt(_) => Error::Corrupt(error.clone().into()),
        Error::Internal(_) => Error::Internal(error.clone().into()),
        _ => Error::Unavailable(error.clone().into()),
    }
}

/// More partitions in one `IN` are refused by ScyllaDB.
pub(super) const IN_AT_MOST: usize = 100;

/// Looks users up. What is asked for while the runtime has other things to do first becomes one query per 100 ids.
pub(super) struct Users {
    db: Arc<Db>,
    waiting: Mutex<Option<Waiting>>,
    queries: Arc<AtomicU64>,
}

/// A question that is not sent yet.
struct Waiting {
    ids: BTreeSet<UserId>,
    answer: watch::Sender<Option<Shared<Found>>>,
}

type Found = HashMap<UserId, Account>;

/// Sends the question when it is dropped: also if its task is gone, since others may have joined it.
struct Turn<'a>(&'a Users);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = waiting.take() {
            tokio::spawn(answer(self.0.db.clone(), self.0.queries.clone(), waiting));
        }
    }
}

async fn answer(db: Arc<Db>, queries: Arc<AtomicU64>, waiting: Waiting) {
    let ids: Vec<_> = waiting.ids.into_iter().map(UserId::uuid).collect();
    let chunks: JoinSet<_> = ids
        .chunks(IN_AT_MOST)
        .map(|chunk| {
            let (db, chunk) = (db.clone(), chunk.to_vec());
            queries.fetch_add(1, SeqCst);
            async move { db.rows::<AccountRow>(&db.statements.users, (chunk,)).await }
        })
        .collect();
    let found = chunks.join_all().await.into_iter().collect::<Result<Vec<_>>>();
    let found = found.map(|chunks| {
        let accounts = chunks.into_iter().flatten().map(Account::from);
        Arc::new(accounts.map(|account| (account.user.user_id, account)).collect())
    });
    // Nobody may wait any more.
    let _ = waiting.answer.send(Some(found.map_err(Arc::new)));
}

impl Users {
    pub(super) fn new(db: Arc<Db>) -> Self {
        Self { db, waiting: Mutex::default(), queries: Arc::default() }
    }

    /// How many queries were sent so far.
    pub(super) fn queries(&self) -> u64 {
        self.queries.load(SeqCst)
    }

    /// Each once, in any order.
    pub(super) async fn get(&self, ids: &[UserId]) -> Result<Vec<Account>> {
        let ids: BTreeSet<_> = ids.iter().copied().collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let (mut answer, turn) = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = waiting.is_none().then(|| Turn(self));
            let waiting = waiting.get_or_insert_with(|| Waiting { ids: BTreeSet::new(), answer: watch::Sender::new(None) });
            waiting.ids.extend(&ids);
            (waiting.answer.subscribe(), turn)
        };
        if let Some(turn) = turn {
            // Whatever else this task and others have to ask is asked before we go on.
            yield_now().await;
            drop(turn);
        }
        let answer = answer.wait_for(Option::is_some).await.map_err(|_| Error::Unavailable("the runtime ends".into()))?;
        match answer.as_ref() {
            Some(Ok(found)) => Ok(ids.iter().filter_map(|id| found.get(id).cloned()).collect()),
            Some(Err(error)) => Err(again(error)),
            None => Err(Error::Internal("an answer without one".into())),
        }
    }
}

/// Newest pages of channels. While a query for one is under way, all who come wait for it to end; then one query is sent
/// for all of them.
#[derive(Default)]
pub(super) struct FirstPages {
    seats: Keyed<(ChannelId, usize), Seat>,
    queries: AtomicU64,
}

#[derive(Default)]
struct Seat {
    /// Tickets given so far.
    came: AtomicU64,
    last: AsyncMutex<Page>,
}

#[derive(Default)]
struct Page {
    /// The query was sent after this ticket was given.
    came: u64,
    page: Option<Shared<Vec<Message>>>,
}

impl FirstPages {
    /// How many queries were sent so far.
    pub(super) fn queries(&self) -> u64 {
        self.queries.load(SeqCst)
    }

    pub(super) async fn get(
        &self,
        channel: ChannelId,
        limit: usize,
        ask: impl Future<Output = Result<Vec<Message>>>,
    ) -> Result<Vec<Message>> {
        let seat = self.seats.hold((channel, limit));
        let ticket = seat.came.fetch_add(1, SeqCst) + 1;
        let mut last = seat.last.lock().await;
        if last.came < ticket {
            let came = seat.came.load(SeqCst);
            self.queries.fetch_add(1, SeqCst);
            // If this task is gone in the middle of it, the next one asks anew.
            let page = ask.await.map(Arc::new).map_err(Arc::new);
            *last = Page { came, page: Some(page) };
        }
        match &last.page {
            Some(Ok(page)) => Ok(page.to_vec()),
            Some(Err(error)) => Err(again(error)),
            None => Err(Error::Internal("an answer without one".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures_util::poll;
    use tokio::sync::oneshot;
    use uuid::Uuid;

    use super::*;

    const CHANNEL: ChannelId = ChannelId::new(Uuid::from_u128(7));

    #[tokio::test]
    async fn those_who_wait_are_answered_by_a_query_sent_after_the_last_came() {
        let pages = FirstPages::default();
        let asked = AtomicU64::new(0);
        let (end, ended) = oneshot::channel::<()>();
        let mut first = Box::pin(pages.get(CHANNEL, 50, async {
            let _ = ended.await;
            Ok(Vec::new())
        }));
        assert!(poll!(&mut first).is_pending());
        let ask = || async {
            asked.fetch_add(1, SeqCst);
            Ok(Vec::new())
        };
        let mut waiting: Vec<_> = (0..100).map(|_| Box::pin(pages.get(CHANNEL, 50, ask()))).collect();
        for one in &mut waiting {
            assert!(poll!(one).is_pending());
        }
        assert!(matches!(poll!(Box::pin(pages.get(CHANNEL, 51, ask()))), Poll::Ready(Ok(_))), "another page");
        end.send(()).unwrap();
        first.await.unwrap();
        // One is gone before its turn.
        drop(waiting.remove(0));
        for one in waiting {
            one.await.unwrap();
        }
        assert_eq!((asked.load(SeqCst), pages.queries()), (2, 3));
        pages.get(CHANNEL, 50, ask()).await.unwrap();
        assert_eq!(pages.queries(), 4, "nothing is kept");
    }

    #[tokio::test]
    async fn a_failure_is_shared_and_not_repeated_for_each() {
        let pages = FirstPages::default();
        let (end, ended) = oneshot::channel::<()>();
        let fails = || async { Err(Error::Unavailable("away".into())) };
        let mut first = Box::pin(pages.get(CHANNEL, 50, async {
            let _ = ended.await;
            Err(Error::Busy)
        }));
        assert!(poll!(&mut first).is_pending());
        let mut waiting: Vec<_> = (0..9).map(|_| Box::pin(pages.get(CHANNEL, 50, fails()))).collect();
        for one in &mut waiting {
            assert!(poll!(one).is_pending());
        }
        end.send(()).unwrap();
        assert!(matches!(first.await, Err(Error::Busy)));
        for one in waiting {
            assert!(matches!(one.await, Err(Error::Unavailable(_))));
        }
        assert_eq!(pages.queries(), 2);
    }
}
