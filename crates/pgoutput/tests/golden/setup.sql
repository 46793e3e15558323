-- What exists before the slots are made.
\set ON_ERROR_STOP on
CREATE SCHEMA golden;
SET search_path = golden;

CREATE TYPE mood AS ENUM ('glum', 'glad');
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE TYPE pair AS (a integer, b text);

CREATE TABLE kinds (
    id integer PRIMARY KEY, flag boolean, i2 smallint, i8 bigint, f4 real, f8 double precision, amount numeric(12, 3),
    note text, code varchar(20), pad char(4), raw bytea, day date, at time, stamp timestamp, stamptz timestamptz,
    ref uuid, doc jsonb, feeling mood, size positive, both_parts pair, list integer[], span int4range, lasts interval
);
CREATE TABLE toasted (id integer PRIMARY KEY, big text, n integer);
ALTER TABLE toasted ALTER big SET STORAGE EXTERNAL;
CREATE TABLE toasted_key (id text PRIMARY KEY, n integer);
ALTER TABLE toasted_key ALTER id SET STORAGE EXTERNAL;
CREATE TABLE toasted_full (id integer PRIMARY KEY, big text, n integer);
ALTER TABLE toasted_full ALTER big SET STORAGE EXTERNAL, REPLICA IDENTITY FULL;
CREATE TABLE identity_full (a integer, b text);
ALTER TABLE identity_full REPLICA IDENTITY FULL;
CREATE TABLE identity_index (a integer, b integer NOT NULL, c text NOT NULL);
CREATE UNIQUE INDEX identity_index_key ON identity_index (b, c);
ALTER TABLE identity_index REPLICA IDENTITY USING INDEX identity_index_key;
CREATE TABLE identity_nothing (a integer);
ALTER TABLE identity_nothing REPLICA IDENTITY NOTHING;
CREATE TABLE no_key (a integer);
CREATE TABLE no_columns ();
CREATE TABLE "Ünï ""quoted"" näme" ("two words" integer PRIMARY KEY, "日本" text);
CREATE TABLE parent (id integer PRIMARY KEY);
CREATE TABLE child (id serial PRIMARY KEY, parent_id integer REFERENCES parent);
CREATE TABLE filler (payload text); -- never published: it fills the memory that a streamed transaction has to exceed

-- The only way to see a relation in pg_catalog, whose schema is empty on the wire.
SET allow_system_table_mods = on;
CREATE TABLE pg_catalog.golden_catalog_table (id integer PRIMARY KEY);
RESET allow_system_table_mods;

INSERT INTO toasted SELECT 1, string_agg(md5(n::text), ''), 1 FROM generate_series(1, 80) n;
INSERT INTO toasted_key SELECT string_agg(md5(n::text), ''), 1 FROM generate_series(1, 65) n;
INSERT INTO toasted_full SELECT 1, string_agg(md5(n::text), ''), 1 FROM generate_series(1, 65) n;

CREATE PUBLICATION golden FOR TABLE kinds, toasted, identity_full, identity_index, no_columns,
    "Ünï ""quoted"" näme", parent, child, pg_catalog.golden_catalog_table;
CREATE PUBLICATION golden_large FOR TABLE toasted_key, toasted_full; -- long messages: only one recording has them
CREATE PUBLICATION golden_inserts FOR TABLE identity_nothing, no_key WITH (publish = 'insert');

SELECT pg_replication_origin_create('elsewhere');
