-- What is recorded. Run live, beside the recorders: a transaction that is known to be rolled back is not streamed by PostgreSQL 18.
\set ON_ERROR_STOP on
SET search_path = golden;
SET timezone = 'UTC';

-- Rows of many types; null; empty values.
BEGIN;
INSERT INTO kinds VALUES (
    1, true, -32768, 9223372036854775807, 1.5, -0.1, 123456789.125,
    'Grüße', '', 'ab', '\x00ff27', '2024-02-29', '23:59:59.999999', '2024-02-29 12:34:56.789', '2024-02-29 12:34:56+02',
    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a": [1, null]}', 'glad', 7, (1, 'x'), '{1,NULL,3}', '[1,10)', '1 year 2 days 03:00'
);
INSERT INTO kinds (id) VALUES (2);
COMMIT;
UPDATE kinds SET note = NULL, feeling = 'glum' WHERE id = 1;
-- The key changes.
UPDATE kinds SET id = 3 WHERE id = 2;
DELETE FROM kinds WHERE id = 3;

-- Values out of line that an update leaves alone.
UPDATE toasted SET n = 2;
UPDATE toasted_full SET n = 2;
UPDATE toasted_key SET n = 2;

-- Replica identities.
BEGIN;
INSERT INTO identity_full VALUES (1, 'one'), (2, NULL);
UPDATE identity_full SET b = 'eins' WHERE a = 1;
DELETE FROM identity_full WHERE a = 2;
INSERT INTO identity_index VALUES (NULL, 1, 'one');
UPDATE identity_index SET a = 5;
UPDATE identity_index SET b = 2;
DELETE FROM identity_index;
INSERT INTO identity_nothing VALUES (1);
INSERT INTO no_key VALUES (1);
INSERT INTO no_columns DEFAULT VALUES;
COMMIT;

-- Names; a schema that is sent as the empty string; a change of the table within the transaction.
BEGIN;
INSERT INTO "Ünï ""quoted"" näme" VALUES (1, '語');
ALTER TABLE "Ünï ""quoted"" näme" ADD extra integer DEFAULT 4, DROP "日本";
INSERT INTO "Ünï ""quoted"" näme" VALUES (2);
INSERT INTO pg_catalog.golden_catalog_table VALUES (1);
COMMIT;

-- Rows that one record of the log holds: they share their LSN.
COPY parent FROM stdin;
50
51
52
\.

-- Truncate.
INSERT INTO parent VALUES (1);
INSERT INTO child (parent_id) VALUES (1);
TRUNCATE child;
TRUNCATE parent RESTART IDENTITY CASCADE;

-- Messages: in a transaction, outside of any, and in one that is rolled back.
BEGIN;
SELECT pg_logical_emit_message(true, 'golden', 'in a transaction');
SELECT pg_logical_emit_message(false, 'golden', '\x00ff'::bytea);
COMMIT;
BEGIN;
SELECT pg_logical_emit_message(true, 'golden', 'never seen');
SELECT pg_logical_emit_message(false, '', '');
ROLLBACK;

-- An origin.
SELECT pg_replication_origin_session_setup('elsewhere');
BEGIN;
SELECT pg_replication_origin_xact_setup('AB/CD', '2001-02-03 04:05:06+00');
INSERT INTO parent VALUES (2);
COMMIT;
SELECT pg_replication_origin_session_reset();

-- A subtransaction is rolled back in an ordinary transaction.
BEGIN;
INSERT INTO parent VALUES (3);
SAVEPOINT one;
INSERT INTO parent VALUES (4);
ROLLBACK TO one;
INSERT INTO parent VALUES (5);
COMMIT;

-- A large transaction: streamed in several blocks, with another transaction between them, a subtransaction that is rolled back after
-- it was streamed and one that is kept, and everything else that can come inside a block.
BEGIN;
INSERT INTO kinds (id, feeling) VALUES (10, 'glad');
SELECT pg_logical_emit_message(true, 'golden', 'streamed');
SAVEPOINT one;
INSERT INTO parent VALUES (6);
INSERT INTO filler SELECT repeat('x', 200) FROM generate_series(1, 500);
\! psql -qXc "INSERT INTO golden.parent VALUES (100)" -c "SELECT pg_sleep(1)" >/dev/null
ROLLBACK TO one;
SAVEPOINT two;
UPDATE kinds SET id = 11 WHERE id = 10;
DELETE FROM identity_full;
TRUNCATE child RESTART IDENTITY;
RELEASE two;
INSERT INTO filler SELECT repeat('x', 200) FROM generate_series(1, 500);
\! psql -qXc "INSERT INTO golden.parent VALUES (101)" -c "SELECT pg_sleep(1)" >/dev/null
DELETE FROM kinds WHERE id = 11;
COMMIT;

-- A large transaction that is rolled back as a whole, after it was streamed.
BEGIN;
INSERT INTO parent VALUES (7);
INSERT INTO filler SELECT repeat('x', 200) FROM generate_series(1, 500);
\! psql -qXc "INSERT INTO golden.parent VALUES (102)" -c "SELECT pg_sleep(1)" >/dev/null
ROLLBACK;

-- A large transaction with an origin.
SELECT pg_replication_origin_session_setup('elsewhere');
BEGIN;
SELECT pg_replication_origin_xact_setup('AB/CE', '2001-02-03 04:05:07+00');
INSERT INTO parent VALUES (8);
INSERT INTO filler SELECT repeat('x', 200) FROM generate_series(1, 500);
COMMIT;
SELECT pg_replication_origin_session_reset();

-- Two-phase commit: committed, rolled back, and both for a transaction that was streamed before it was prepared.
BEGIN;
INSERT INTO parent VALUES (20);
PREPARE TRANSACTION 'golden commit';
COMMIT PREPARED 'golden commit';
BEGIN;
INSERT INTO parent VALUES (21);
PREPARE TRANSACTION 'golden rollback';
\! psql -qXc "INSERT INTO golden.parent VALUES (103)" -c "SELECT pg_sleep(1)" >/dev/null
ROLLBACK PREPARED 'golden rollback';
BEGIN;
INSERT INTO parent VALUES (22);
INSERT INTO filler SELECT repeat('x', 200) FROM generate_series(1, 500);
PREPARE TRANSACTION 'golden streamed commit';
COMMIT PREPARED 'golden streamed commit';
BEGIN;
INSERT INTO parent VALUES (23);
INSERT INTO filler SELECT repeat('x', 200) FROM generate_series(1, 500);
PREPARE TRANSACTION 'golden streamed rollback';
\! psql -qXc "INSERT INTO golden.parent VALUES (104)" -c "SELECT pg_sleep(1)" >/dev/null
ROLLBACK PREPARED 'golden streamed rollback';

-- The recorders stop here.
SELECT pg_logical_emit_message(false, 'golden', 'end');
