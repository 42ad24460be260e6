-- Why: an account may be bound to a proxy that all its connections go out through.
-- Twin: migrations/sqlite/0004_egress_proxies.sql. An egress proxy that an account is bound to cannot be removed.

create table egress_proxies (
    id text collate "C" primary key not null,
    name text not null unique,
    kind text not null,
    host text not null,
    port bigint not null,
    login_user text,
    password_sealed text,
    version bigint not null,
    created_at bigint not null,
    updated_at bigint not null
);

alter table accounts add column egress_proxy_id text collate "C" references egress_proxies (id);
