//! `sticky_sessions`: the first writer wins, a move takes over, and pages follow the use.

use codex_lb_shared::ids::AccountId;
use codex_lb_shared::store::{StickySession, StickyWrite};

use crate::samples::at;

fn session(key: u8, account: u128, used: i64) -> StickySession {
    StickySession {
        key: [key; 16],
        account_id: AccountId::from_u128(account),
        is_codex_session: key.is_multiple_of(2),
        last_used_at: at(used),
    }
}

fn placed(session: StickySession) -> StickyWrite {
    StickyWrite { session, is_move: false, dead_before: at(0) }
}

both_databases! {
    async fn of_two_replicas_that_place_one_conversation_the_first_wins_and_both_learn_it(db: Database) {
        db.store.save_sticky_sessions(&[placed(session(1, 10, 5))]).await.unwrap();
        db.store.save_sticky_sessions(&[placed(session(1, 20, 6))]).await.unwrap();
        let known = db.store.sticky_sessions_after((at(0), [0; 16])).await.unwrap();
        assert_eq!(known, [session(1, 10, 6)]);
    }

    async fn a_conversation_that_had_to_move_or_whose_row_is_dead_takes_it_over(db: Database) {
        db.store.save_sticky_sessions(&[placed(session(1, 10, 5)), placed(session(2, 10, 5))]).await.unwrap();
        let moved = StickyWrite { is_move: true, ..placed(session(1, 20, 6)) };
        let revived = StickyWrite { dead_before: at(6), ..placed(session(2, 30, 7)) };
        db.store.save_sticky_sessions(&[moved, revived]).await.unwrap();
        let known = db.store.sticky_sessions_after((at(0), [0; 16])).await.unwrap();
        assert_eq!(known, [session(1, 20, 6), session(2, 30, 7)]);
    }

    async fn an_older_use_never_makes_a_session_older(db: Database) {
        db.store.save_sticky_sessions(&[placed(session(1, 10, 9))]).await.unwrap();
        db.store.save_sticky_sessions(&[placed(session(1, 10, 5))]).await.unwrap();
        assert_eq!(db.store.sticky_sessions_after((at(0), [0; 16])).await.unwrap(), [session(1, 10, 9)]);
    }

    async fn pages_go_on_behind_the_last_row_even_among_equal_times(db: Database) {
        let writes: Vec<_> = (1..=9).map(|key| placed(session(key, 10, 5))).collect();
        db.store.save_sticky_sessions(&writes).await.unwrap();
        let rest = db.store.sticky_sessions_after((at(5), [4; 16])).await.unwrap();
        assert_eq!(rest, (5..=9).map(|key| session(key, 10, 5)).collect::<Vec<_>>());
        assert_eq!(db.store.sticky_sessions_after((at(5), [9; 16])).await.unwrap(), []);
    }

    async fn codex_sessions_outlive_others(db: Database) {
        db.store.save_sticky_sessions(&[placed(session(1, 10, 5)), placed(session(2, 10, 5))]).await.unwrap();
        assert_eq!(db.store.prune_sticky_sessions(at(5), at(6)).await.unwrap(), 1);
        assert_eq!(db.store.sticky_sessions_after((at(0), [0; 16])).await.unwrap(), [session(2, 10, 5)]);
    }
}
