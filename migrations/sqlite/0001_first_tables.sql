-- Why: everything the gateway remembers: accounts, api keys, what each exchange used, and live settings.
-- Twin: migrations/postgres/0001_first_tables.sql. Times are UTC milliseconds, money is millionths of a dollar.

create table accounts (
    id text primary key not null,
    chatgpt_account_id text not null,
    chatgpt_user_id text not null,
    email text not null,
    alias text,
    plan text not null,
    state text not null,
    state_reason text,
    state_until bigint,
    routing_policy text not null,
    concurrency_cap bigint,
    installation_id text not null,
    id_token_sealed text not null,
    access_token_sealed text not null,
    refresh_token_sealed text not null,
    access_token_expires_at bigint,
    tokens_refreshed_at bigint not null,
    token_version bigint not null,
    created_at bigint not null,
    updated_at bigint not null,
    unique (chatgpt_account_id, chatgpt_user_id)
);

-- What upstream last said about each window of an account.
create table account_usage_latest (
    account_id text not null references accounts (id) on delete cascade,
    window_kind text not null,
    used_percent double precision not null,
    window_minutes bigint not null,
    resets_at bigint,
    observed_at bigint not null,
    primary key (account_id, window_kind)
);

create table api_keys (
    id text primary key not null,
    name text not null,
    secret_hash text not null unique,
    visible_prefix text not null,
    is_enabled boolean not null,
    revoked_at bigint,
    expires_at bigint,
    created_at bigint not null,
    last_used_at bigint
);

-- No foreign keys: the log outlives the accounts and api keys it names. A null token count is unknown, not zero.
create table request_log (
    id text primary key not null,
    requested_at bigint not null,
    account_id text,
    api_key_id text,
    route text not null,
    transport text not null,
    status text not null,
    error_code text,
    upstream_status bigint,
    legs bigint not null,
    model_requested text,
    model text,
    effort text,
    tier text,
    input_tokens bigint,
    cached_input_tokens bigint,
    output_tokens bigint,
    reasoning_tokens bigint,
    is_estimated boolean not null,
    cost_micros bigint,
    first_byte_ms bigint,
    first_token_ms bigint,
    total_ms bigint not null,
    user_agent_group text not null,
    conversation_id text
);
create index request_log_by_time on request_log (requested_at, id);
create index request_log_by_account on request_log (account_id, requested_at) where account_id is not null;
create index request_log_by_api_key on request_log (api_key_id, requested_at) where api_key_id is not null;
create index request_log_by_model on request_log (model, requested_at) where model is not null;
create index request_log_by_conversation on request_log (conversation_id) where conversation_id is not null;

-- Sums of the log per UTC hour. '' stands for "none": null could not be part of a key.
create table usage_hourly (
    hour_at bigint not null,
    account_id text not null default '',
    api_key_id text not null default '',
    model text not null default '',
    tier text not null default '',
    status text not null,
    requests bigint not null,
    input_tokens bigint not null,
    cached_input_tokens bigint not null,
    output_tokens bigint not null,
    reasoning_tokens bigint not null,
    cost_micros bigint not null,
    unpriced_requests bigint not null,
    primary key (hour_at, account_id, api_key_id, model, tier, status)
) without rowid;

-- One JSON document per group of live settings, and the few single facts an installation has.
create table settings (
    name text primary key not null,
    value text not null,
    version bigint not null,
    updated_at bigint not null
);

-- Grows with every write of a topic, so that a server notices what another process wrote.
create table change_generation (
    topic text primary key not null,
    value bigint not null
);
insert into change_generation (topic, value) values ('accounts', 0), ('api_keys', 0), ('settings', 0);
