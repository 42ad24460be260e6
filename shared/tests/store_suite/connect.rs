//! Opening: tables are made once whoever asks, and a database that is not there is said so, soon and without passwords.

use std::time::{Duration, Instant};

use codex_lb_shared::domain::api_key::NewApiKeySecret;
use codex_lb_shared::store::{DatabaseUrl, Store, StoreError};

use crate::samples::{api_key, at};

fn url(text: &str) -> DatabaseUrl {
    text.parse().unwrap()
}

/// The whole of an error as somebody could print it.
fn all_words(error: &StoreError) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string);
    format!("{error} {error:?} {}", source.unwrap_or_default())
}

both_databases! {
    async fn migrating_again_changes_nothing(db: Database) {
        let key = api_key(&NewApiKeySecret::from_random([1; 32]), 1);
        db.store.insert_api_key(&key).await.unwrap();
        db.store.migrate().await.unwrap();
        db.another().await.migrate().await.unwrap();
        assert_eq!(db.store.list_api_keys().await.unwrap(), [key]);
        db.store.ping().await.unwrap();
    }

    async fn processes_that_migrate_at_once_queue(db: Database) {
        db.execute(
            "drop table account_usage_latest; drop table token_refresh_claims; drop table accounts; \
             drop table egress_proxies; drop table api_keys; drop table request_log; drop table usage_hourly; drop table settings; \
             drop table change_generation; drop table sticky_sessions; drop table _sqlx_migrations",
        )
        .await;
        let processes = [(); 4].map(|()| {
            let url = db.url.clone();
            tokio::spawn(async move { Store::connect(&url).await.unwrap().migrate().await })
        });
        for process in processes {
            process.await.unwrap().unwrap();
        }
        db.store.generations().await.unwrap();
    }

    async fn the_previous_version_still_starts_on_a_newer_database(db: Database) {
        db.execute(
            "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
             values (9999, 'from the future', true, '00', 1)",
        )
        .await;
        db.store.migrate().await.unwrap();
    }

    async fn a_migration_that_was_edited_after_its_release_is_refused(db: Database) {
        db.execute("update _sqlx_migrations set checksum = '00'").await;
        let error = db.store.migrate().await.unwrap_err();
        assert!(matches!(error, StoreError::Migrate { .. }), "{error:?}");
        assert!(all_words(&error).contains("has been modified"), "{error:?}");
    }

    async fn what_was_committed_is_there_for_the_next_process(db: Database) {
        let key = api_key(&NewApiKeySecret::from_random([1; 32]), 1);
        db.store.insert_api_key(&key).await.unwrap();
        db.store.close().await;
        assert_eq!(db.another().await.list_api_keys().await.unwrap(), [key]);
        let error = db.store.list_api_keys().await.unwrap_err();
        assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
    }

    async fn a_writer_that_never_ends_makes_others_say_busy_in_bounded_time(db: Database) {
        let lock = db.lock_everything().await;
        let key = api_key(&NewApiKeySecret::from_random([1; 32]), 1);
        let started = Instant::now();
        let error = db.store.insert_api_key(&key).await.unwrap_err();
        assert!(matches!(error, StoreError::Busy { .. }), "{error:?}");
        assert!(started.elapsed() < Duration::from_secs(14), "took {:?}", started.elapsed());
        // Readers do not wait for writers.
        assert_eq!(db.store.list_api_keys().await.unwrap(), []);
        drop(lock);
        db.store.insert_api_key(&key).await.unwrap();
        assert_eq!(db.store.find_api_key(key.id).await.unwrap(), Some(key));
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_so_without_its_password() {
    // Bound and closed again, so that nothing listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let started = Instant::now();
    let error = Store::connect(&url(&format!("postgres://lb:hunter2@127.0.0.1:{port}/lb"))).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        format!("open the database: postgres://lb:***@127.0.0.1:{port}/lb?sslmode=prefer cannot be reached")
    );
    assert!(all_words(&error).contains("refused") && !all_words(&error).contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_in_bounded_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let started = Instant::now();
    let error = Store::connect(&url(&format!("postgres://lb:hunter2@127.0.0.1:{port}/lb"))).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(8), "took {:?}", started.elapsed());
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
    assert!(!all_words(&error).contains("hunter2"));
}

#[tokio::test]
async fn a_database_that_the_server_does_not_have_is_named() {
    let server = crate::databases::postgres_server();
    let missing = format!("{}/no_such_database", &server[..server.rfind('/').unwrap()]);
    let error = Store::connect(&url(&missing)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
    assert!(all_words(&error).contains("\"no_such_database\\\" does not exist"), "{}", all_words(&error));
}

#[tokio::test]
async fn a_sqlite_file_that_cannot_be_made_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Store::connect(&DatabaseUrl::sqlite_file(file.join("store.db"))).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("file/store.db"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes.txt");
    let notes = "Dear diary, this is not a database. ".repeat(50);
    std::fs::write(&path, &notes).unwrap();
    Store::connect(&DatabaseUrl::sqlite_file(&path)).await.unwrap_err();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), notes);
}

#[cfg(unix)]
#[tokio::test]
async fn a_new_sqlite_file_is_for_its_owner_only_side_files_included() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("new/data");
    let store = Store::connect(&DatabaseUrl::sqlite_file(home.join("store.db"))).await.unwrap();
    store.migrate().await.unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&home), 0o700);
    let files: Vec<_> = std::fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn a_database_in_memory_serves_reads_and_writes() {
    let store = Store::connect(&url("sqlite::memory:")).await.unwrap();
    store.migrate().await.unwrap();
    let key = api_key(&NewApiKeySecret::from_random([1; 32]), 1);
    store.insert_api_key(&key).await.unwrap();
    assert!(store.revoke_api_key(key.id, at(2)).await.unwrap());
    assert_eq!(store.list_api_keys().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_connection_that_the_server_ended_is_replaced() {
    crate::databases::on_postgres(|db| async move {
        db.store.ping().await.unwrap();
        db.texts(
            "",
            "select pg_terminate_backend(pid)::text from pg_stat_activity where application_name = 'codex-lb' \
            and datname = current_database()",
        )
        .await;
        db.store.ping().await.unwrap();
    })
    .await;
}
