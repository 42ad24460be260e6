-- Why: a conversation stays on its account over restarts and on every replica.
-- Twin: migrations/sqlite/0003_sticky_sessions.sql. The key is a hash; it tells nothing of the caller or the conversation.

create table sticky_sessions (
    session_key text collate "C" primary key not null,
    account_id text not null,
    is_codex_session boolean not null,
    last_used_at bigint not null
);

create index sticky_sessions_by_use on sticky_sessions (last_used_at, session_key);
