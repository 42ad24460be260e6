-- Why: refresh tokens are single-use, so of all replicas one at a time may use an account's.
-- Twin: migrations/postgres/0002_token_refresh_claims.sql. A row is the right to refresh until its time is up by the
-- database's own clock; whoever is done deletes it.

create table token_refresh_claims (
    account_id text primary key not null references accounts (id) on delete cascade,
    claimed_by text not null,
    claimed_until bigint not null
);
