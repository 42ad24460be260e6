//! The two sets of migrations make the same tables.

use crate::databases::{Database, on_postgres, on_sqlite};

const COLUMNS_SQLITE: &str = "\
    select t.name || '.' || c.name || ' ' || lower(c.type) || case when c.\"notnull\" then ' not null' else '' end \
    from sqlite_master t join pragma_table_info(t.name) c \
    where t.type = 'table' and t.name not like '\\_sqlx%' escape '\\' and t.name not like 'sqlite\\_%' escape '\\'";
const COLUMNS_POSTGRES: &str = "\
    select table_name || '.' || column_name || ' ' || data_type || \
        case is_nullable when 'NO' then ' not null' else '' end \
    from information_schema.columns where table_schema = 'public' and table_name <> '_sqlx_migrations'";

// The databases name the indexes of primary keys and unique columns themselves, each in its own way.
const INDEXES_SQLITE: &str = "select name from sqlite_master where type = 'index' and sql is not null";
const INDEXES_POSTGRES: &str = "\
    select indexname from pg_indexes where schemaname = 'public' and tablename <> '_sqlx_migrations' \
        and indexname not in (select conname from pg_constraint)";

async fn schema(db: Database) -> Vec<String> {
    let mut schema = db.texts(COLUMNS_SQLITE, COLUMNS_POSTGRES).await;
    schema.extend(db.texts(INDEXES_SQLITE, INDEXES_POSTGRES).await);
    schema.sort();
    schema
}

#[tokio::test]
async fn both_databases_have_the_same_tables_columns_and_indexes() {
    let (send, mut receive) = tokio::sync::mpsc::channel(2);
    let keep = send.clone();
    on_sqlite(|db| async move { keep.send(schema(db).await).await.unwrap() }).await;
    on_postgres(|db| async move { send.send(schema(db).await).await.unwrap() }).await;
    let (of_sqlite, of_postgres) = (receive.recv().await.unwrap(), receive.recv().await.unwrap());
    assert_eq!(of_sqlite, of_postgres);
    assert!(of_sqlite.iter().any(|line| line == "request_log.is_estimated boolean not null"));
    let log_columns = of_sqlite.iter().filter(|line| line.starts_with("request_log.")).count();
    let log_indexes = of_sqlite.iter().filter(|line| line.starts_with("request_log_by_")).count();
    assert!(log_columns <= 30 && log_indexes < 6, "{log_columns} columns, {log_indexes} indexes beside the key");
}
