-- Values of many types as PostgreSQL prints them, and what they are by PostgreSQL's own arithmetic.
-- psql -qAt -F "$(printf '\t')" -v ON_ERROR_STOP=1 -f values.sql > values.tsv
-- Columns: the type's OID, or 0 for hstore, its modifier, the text, the expected value.
set datestyle = iso; set timezone = utc; set extra_float_digits = 3; set bytea_output = hex;
do $$ begin perform setseed(0.5); end $$;
create extension if not exists hstore;
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
-- interval: microseconds, with a twelfth of 365.25 days to a month.
create temp table intervals as
  select make_interval(months => ((random() - 0.5) * 2e5)::int, days => ((random() - 0.5) * 2e6)::int) + ((random() - 0.5) * 1e12)::int8 * interval '1 microsecond' as i
    from generate_series(1, 80)
  union all select (case when n & 1 = 0 then 1 else -1 end * n % 7) * interval '1 month' + (case when n & 2 = 0 then 1 else -1 end * n % 5) * interval '1 day'
    + (case when n & 4 = 0 then 1 else -1 end * n % 3) * interval '1 hour 2 minutes 3.45 seconds' from generate_series(0, 63) n
  union all values (interval '0'), ('1 year 2 mons 3 days 04:05:06.789'), ('-1 day +02:03:04'), ('2562047788:00:54.775807'), ('-00:00:00.000001'), ('106751991 days');
create function pg_temp.time_micros(i interval) returns numeric language sql as $$
  select extract(hour from i) * 3600000000 + extract(minute from i) * 60000000 + extract(microseconds from i) $$;
insert into found select 1186, -1, i::text, trunc((extract(year from i) * 12 + extract(month from i)) * 2629800000000
  + extract(day from i) * 86400000000 + pg_temp.time_micros(i))::text from intervals;
-- time with time zone: the same in UTC, in which 24:00:00 is 00:00:00 only if there is something to reckon.
create temp table zoned as
  select ts::time::text || (case when n & 1 = 0 then '+' else '-' end) || to_char(make_interval(secs => (random() * 57599)::int), 'HH24:MI:SS') as t
    from (select ts, row_number() over () as n from moments) m
  union all values ('12:34:56.789012+02'), ('00:00:00+00'), ('23:59:59.999999-15:59:59'), ('24:00:00+02'), ('12:00:00.5+05:30');
insert into found select 1266, -1, t::timetz::text, rtrim(rtrim(to_char((t::timetz at time zone 'UTC')::time::interval, 'HH24:MI:SS.US'), '0'), '.') || 'Z' from zoned;
-- bit strings: the bytes of the number, the lowest first.
create temp table bit_strings as
  select (random() * 4294967295)::int8::bit(64) as b from generate_series(1, 40) union all values (0::int8::bit(64)), ((-1)::int8::bit(64)), (1::int8::bit(64));
create function pg_temp.bits(b text) returns text language sql as $$
  select coalesce(string_agg(lpad(to_hex(lpad(part, 8, '0')::bit(8)::int), 2, '0'), '' order by n), '') from
    (select n, right(left(t, length(t) - 8 * n), 8) as part from (select ltrim(b, '0') as t) x, generate_series(0, 7) n where 8 * n < length(t)) parts $$;
insert into found select 1560, 64, b::text, pg_temp.bits(b::text) from bit_strings;
insert into found select 1560, 13, b::bit(13)::text, pg_temp.bits(b::bit(13)::text) from bit_strings;
insert into found select 1562, -1, left(b::text, n)::varbit::text, pg_temp.bits(left(b::text, n)) from bit_strings, (values (0), (1), (33), (64)) lengths(n);
insert into found values (1560, 1, '0', 'false'), (1560, 1, '1', 'true');
-- money: hundredths.
insert into found select 790, -1, m::text, trunc(m::numeric * 100)::text from
  (select ((random() - 0.5) * 1e15)::numeric::money as m from generate_series(1, 60)
  union all values ('0'::money), ('-0.01'), ('92233720368547758.07'), ('-92233720368547758.08')) t;
insert into found values (26, -1, '0', '0'), (26, -1, '4294967295', '4294967295');
insert into found select 600, -1, p::text, encode(float8send(p[0]), 'hex') || encode(float8send(p[1]), 'hex') from
  (select point((random() - 0.5) * 10 ^ (random() * 40 - 20), (random() - 0.5) * 10 ^ (random() * 40 - 20)) as p from generate_series(1, 40)
  union all values (point 'NaN,Infinity'), ('-0,-Infinity'), ('5e-324,1e308')) t;
-- arrays and hstore: as PostgreSQL's own JSON.
create function pg_temp.words() returns text[] language sql as $$
  select array['', 'NULL', 'null', 'a b', 'q"q', E'back\\slash', 'x,y', '{z}', 'é漢🎉', ' ', 'a=>b', null] $$;
insert into found select 1009, -1, a::text, to_json(a)::text from
  (select array_agg(words[1 + (random() * 11)::int]) as a from pg_temp.words() words, generate_series(1, 300) v group by v % 60) t;
insert into found select 1007, -1, a::text, to_json(a)::text from
  (select array_agg(case when random() < 0.1 then null else (random() * 4e9 - 2e9)::int end) as a from generate_series(1, 3000) v group by v % 40
  union all values ('{}'::int[]), (array_fill(7, array[100]))) t;
insert into found values (1000, -1, '{t,f,NULL}', '[true,false,null]');
insert into found select 199, -1, a::text, to_json(array(select to_json(j::text) from unnest(a) j))::text from (values (array['{"a": "b\"c"}', '[1, 2]']::json[])) t(a);
insert into found select 0, -1, h::text, hstore_to_json(h)::text from
  (select hstore(array_agg(coalesce(words[1 + (random() * 10)::int], 'k')), array_agg(words[1 + (random() * 11)::int])) as h
    from pg_temp.words() words, generate_series(1, 200) k group by k % 40
  union all values (''::hstore)) t;
table found;
