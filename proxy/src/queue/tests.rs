//! The queue under a clock that the tests move: how long exchanges wait when there are more of them than slots.

use std::time::Duration;

use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::domain::account::{Account, AccountStatus, Plan, RoutingPolicy, UpstreamIdentity};
use codex_lb_shared::egress::AccountEgress;
use codex_lb_shared::ids::AccountId;
use codex_lb_shared::pool::AccountLive;
use codex_lb_shared::secret::{EncryptionKey, Sealer};
use codex_lb_shared::store::Store;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::*;

const ACCOUNTS: u128 = 4;
const SLOTS_PER_ACCOUNT: u32 = 7;
const SLOTS: usize = 28;
const STREAM: Duration = Duration::from_secs(2);

/// A pool that works, a queue on it, and accounts of which the database knows nothing. The clock stands still from here
/// on, and moves when everybody waits.
struct Stand {
    pool: Arc<Pool>,
    queue: Arc<SlotQueue>,
    accounts: Vec<Arc<PooledAccount>>,
}

async fn stand() -> Arc<Stand> {
    let store = Store::connect(&"sqlite::memory:".parse().unwrap()).await.unwrap();
    store.migrate().await.unwrap();
    let sealer = Arc::new(Sealer::new(&EncryptionKey::from_bytes([1; 32])));
    let pool = Pool::load(store, sealer, None).await.unwrap();
    pool.set_default_cap(SLOTS_PER_ACCOUNT);
    tokio::time::pause();
    let queue = SlotQueue::of(&pool);
    Arc::new(Stand { pool, queue, accounts: (1..=ACCOUNTS).map(account).collect() })
}

fn account(number: u128) -> Arc<PooledAccount> {
    let name = number.to_string();
    let account = Account {
        id: AccountId::from_u128(number),
        identity: UpstreamIdentity { chatgpt_account_id: name.clone(), chatgpt_user_id: name.clone() },
        email: String::new(),
        alias: None,
        plan: Plan::Plus,
        status: AccountStatus::ACTIVE,
        routing_policy: RoutingPolicy::default(),
        concurrency_cap: None,
        egress_proxy_id: None,
        installation_id: name,
        access_token_expires_at: None,
        tokens_refreshed_at: Timestamp::from_unix_ms(0),
        token_version: 1,
        created_at: Timestamp::from_unix_ms(0),
    };
    let (access_token, live) = (String::new().into(), Arc::<AccountLive>::default());
    Arc::new(PooledAccount { account, access_token, egress: AccountEgress::Direct, live })
}

impl Stand {
    /// A slot, at once or in turn, as an exchange takes it.
    async fn slot(&self, caller: &str) -> Lease {
        if let Some(lease) = self.free_slot() {
            return lease;
        }
        let mut place = self.queue.enter(caller, Box::new(|_| true)).unwrap();
        match self.free_slot() {
            Some(lease) => lease,
            None => place.slot().await.unwrap(),
        }
    }

    fn free_slot(&self) -> Option<Lease> {
        self.accounts.iter().find_map(|account| self.pool.try_lease(account))
    }

    fn in_flight(&self) -> u32 {
        let now = Timestamp::from_unix_ms(0);
        self.accounts.iter().map(|account| account.live.view(now).in_flight).sum()
    }
}

/// Lets each caller's clients stream without a pause, so many rounds, and returns what each of its streams waited.
async fn waits(
    stand: &Arc<Stand>,
    clients: &[(&'static str, usize)],
    rounds: usize,
) -> HashMap<&'static str, Vec<Duration>> {
    let mut work = JoinSet::new();
    for (caller, count) in clients {
        for _ in 0..*count {
            let (stand, caller) = (Arc::clone(stand), *caller);
            work.spawn(async move {
                let mut waits = Vec::with_capacity(rounds);
                for _ in 0..rounds {
                    let began = Instant::now();
                    let lease = stand.slot(caller).await;
                    waits.push(began.elapsed());
                    tokio::time::sleep(STREAM).await;
                    drop(lease);
                }
                (caller, waits)
            });
        }
    }
    let mut by_caller: HashMap<&'static str, Vec<Duration>> = HashMap::new();
    while let Some(done) = work.join_next().await {
        let (caller, waits) = done.unwrap();
        by_caller.entry(caller).or_default().extend(waits);
    }
    by_caller.values_mut().for_each(|waits| waits.sort_unstable());
    by_caller
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

#[tokio::test]
async fn sixty_four_clients_on_28_slots_wait_as_long_as_arithmetic_says() {
    let stand = stand().await;
    let began = Instant::now();
    let by_caller = waits(&stand, &[("a", 16), ("b", 16), ("c", 16), ("d", 16)], 10).await;
    let mut all: Vec<Duration> = by_caller.values().flatten().copied().collect();
    all.sort_unstable();
    assert_eq!(all.len(), 640);
    let (median, p99) = (percentile(&all, 50), percentile(&all, 99));
    assert!(median <= Duration::from_secs(3) && p99 <= Duration::from_secs(5), "median {median:?}, p99 {p99:?}");
    // No slot is ever idle while somebody waits.
    let least = STREAM * u32::try_from(640_usize.div_ceil(SLOTS)).unwrap();
    assert!(began.elapsed() <= least + STREAM, "{:?} instead of {least:?}", began.elapsed());
    assert_eq!(stand.in_flight(), 0);
}

#[tokio::test]
async fn who_asks_little_does_not_wait_for_who_asks_much() {
    let stand = stand().await;
    let by_caller = waits(&stand, &[("much", 60), ("little", 4)], 10).await;
    let (much, little) = (&by_caller["much"], &by_caller["little"]);
    // All slots are freed at the same moments here, which is the worst that can happen to a newcomer.
    assert!(percentile(little, 99) <= STREAM + Duration::from_millis(100), "{:?}", percentile(little, 99));
    assert!(percentile(little, 50) < percentile(much, 50) / 2 || percentile(little, 50).is_zero(), "{by_caller:?}");
    assert!(percentile(much, 99) <= Duration::from_secs(6), "who asks much starves: {:?}", percentile(much, 99));
}

#[tokio::test]
async fn callers_who_ask_alike_wait_alike() {
    let stand = stand().await;
    let by_caller = waits(&stand, &[("a", 20), ("b", 20), ("c", 20)], 12).await;
    let sums: Vec<Duration> = by_caller.values().map(|waits| waits.iter().sum()).collect();
    let (least, most) = (sums.iter().min().unwrap(), sums.iter().max().unwrap());
    assert!(*most <= *least + *least / 4, "{sums:?}");
}

#[tokio::test]
async fn within_a_caller_who_came_first_is_served_first() {
    let stand = stand().await;
    let held: Vec<Lease> = (0..SLOTS).map(|_| stand.free_slot().unwrap()).collect();
    assert!(stand.free_slot().is_none());
    let mut places: Vec<Place<'_>> = (0..SLOTS).map(|_| stand.queue.enter("a", Box::new(|_| true)).unwrap()).collect();
    let mut served_leases = Vec::new();
    for (served, lease) in held.into_iter().enumerate() {
        drop(lease);
        for (number, place) in places.iter_mut().enumerate().skip(served) {
            let lease = place.slot.try_recv().ok();
            assert_eq!(lease.is_some(), number == served, "place {number} after {served} others");
            served_leases.extend(lease);
        }
    }
}

#[tokio::test]
async fn who_leaves_the_queue_passes_the_slot_on() {
    let stand = stand().await;
    let mut held: Vec<Lease> = (0..SLOTS).map(|_| stand.free_slot().unwrap()).collect();
    let leaving = stand.queue.enter("a", Box::new(|_| true)).unwrap();
    let mut staying = stand.queue.enter("b", Box::new(|_| true)).unwrap();
    // The slot has been handed over already when its receiver leaves.
    held.pop();
    drop(leaving);
    let lease = tokio::time::timeout(STREAM, staying.slot()).await.unwrap().unwrap();
    assert_eq!(stand.in_flight() as usize, SLOTS);
    drop((lease, staying, held));
    assert_eq!(stand.in_flight(), 0);
    assert!(stand.queue.waiting.lock().by_caller.is_empty() && stand.queue.waiting.lock().turns.is_empty());
}
