-- Values of many types as PostgreSQL prints them, and what they are by PostgreSQL's own arithmetic.
-- psql -qAt -F "$(printf '\t')" -v ON_ERROR_STOP=1 -f values.sql > values.tsv
-- Columns: the type's OID, its modifier, the text, the expected value.
set datestyle = iso; set timezone = utc; set extra_float_digits = 3; set bytea_output = hex;
do $$ begin perform setseed(0.5); end $$;
create temp table found(type_oid int, type_modifier int, text text, expected text);
-- date: days since 1970.
insert into found select 1082, -1, d::text, (d - date '1970-01-01')::text
  from (select date '4714-11-24 BC' + (random() * 2147483493)::int as d from generate_series(1, 80)
  union all select date '4714-11-24 BC' + (random() * 4000000)::int from generate_series(1, 80)
  union all values (date '4714-11-24 BC'), ('0001-12-31 BC'), ('0001-01-01'), ('1969-12-31'), ('2000-02-29'), ('9999-12-31'), ('10000-01-01'), ('5874897-12-31')) t;
-- timestamp: microseconds since 1970, by precision; what does not fit 64 bits is left out.
create temp table moments as
  select timestamp '4714-11-24 BC' + (random() * 109000000) * interval '1 day' + (random() * 86400) * interval '1 second' as ts from generate_series(1, 80)
  union all select timestamp '4714-11-24 BC' + (random() * 5000000) * interval '1 day' + (random() * 86400) * interval '1 second' from generate_series(1, 80)
  union all values (timestamp '4714-11-24 00:00:00 BC'), ('0001-12-31 23:59:59.999999 BC'), ('1969-12-31 23:59:59.999999'), ('294247-01-10 04:00:25.199999');
insert into found select 1114, -1, ts::text, trunc(extract(epoch from ts) * 1000000)::text from moments where ts < '294247-01-10 04:00:25.2';
insert into found select 1114, 3, ts::timestamp(3)::text, trunc(extract(epoch from ts::timestamp(3)) * 1000)::text from moments
  where ts::timestamp(3) <> '294247-01-10 04:00:25.2'; -- which is Debezium's infinity
insert into found select 1114, 0, ts::timestamp(0)::text, trunc(extract(epoch from ts::timestamp(0)) * 1000)::text from moments;
-- timestamp with time zone: ISO 8601 by its fields, with the astronomical year.
create function pg_temp.iso(ts timestamptz, digits int) returns text language sql as $$
  select case when y < 0 then '-' when y > 9999 then '+' else '' end || lpad(abs(y)::text, greatest(4, length(abs(y)::text)), '0')
    || to_char(ts, '-MM-DD"T"HH24:MI:SS') || case when digits > 0 then '.' || left(to_char(ts, 'US'), digits) else '' end || 'Z'
  from (select case when extract(year from ts) < 0 then extract(year from ts)::int + 1 else extract(year from ts)::int end as y) years $$;
insert into found select 1184, -1, (ts at time zone 'utc')::text, pg_temp.iso(ts at time zone 'utc', 6) from moments;
insert into found select 1184, 2, (ts at time zone 'utc')::timestamptz(2)::text, pg_temp.iso((ts at time zone 'utc')::timestamptz(2), 2) from moments;
-- time: since midnight.
insert into found select 1083, -1, ts::time::text, trunc(extract(epoch from ts::time) * 1000000)::text from moments;
insert into found select 1083, 3, ts::time(3)::text, trunc(extract(epoch from ts::time(3)) * 1000)::text from moments;
insert into found values (1083, -1, time '24:00:00', '86400000000'), (1083, 3, time(3) '24:00:00', '86400000');
-- numeric: the unscaled value.
insert into found select 1700, (p << 16 | (s & 2047)) + 4, n::text, trunc(n * 10::numeric ^ greatest(s, 0))::text from
  (select 38 as p, 10 as s, ((random() - 0.5) * 10 ^ (random() * 50 - 25))::numeric(38, 10) as n from generate_series(1, 100)
  union all select 1000, 0, (((random() - 0.5) * 1e15)::numeric ^ 7)::numeric(1000, 0) from generate_series(1, 30)
  union all select 5, -3, ((random() - 0.5) * 1e8)::numeric(5, -3) from generate_series(1, 30)
  union all select 2, 6, ((random() - 0.5) * 1e-4)::numeric(2, 6) from generate_series(1, 30)) t;
-- floats and bytes: as their binary output.
insert into found select 701, -1, f::text, encode(float8send(f), 'hex') from
  (select (random() - 0.5) * 10 ^ (random() * 600 - 300) as f from generate_series(1, 80)
  union all values ('NaN'::float8), ('Infinity'), ('-Infinity'), ('-0'), (5e-324), (1.7976931348623157e308), (0.1)) t;
insert into found select 700, -1, f::text, encode(float4send(f), 'hex') from
  (select ((random() - 0.5) * 10 ^ (random() * 70 - 35))::float4 as f from generate_series(1, 80)
  union all values ('NaN'::float4), ('Infinity'), ('-0'), (1e-45), (3.4028235e38), (0.1)) t;
insert into found select 17, -1, b::text, encode(b, 'hex') from (select sha512(n::text::bytea) || ''::bytea as b from generate_series(1, 20) n union all values (''::bytea)) t;
table found;
