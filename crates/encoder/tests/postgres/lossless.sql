-- Values of the types that Debezium's forms forget something of, and what stands for them where nothing is to be forgotten. PostgreSQL
-- takes each of these back to the value itself: the last statements see to that.
-- psql -qAt -F "$(printf '\t')" -v ON_ERROR_STOP=1 -f lossless.sql > lossless.tsv
-- Columns: the type's OID, its modifier, the text, the expected text.
set datestyle = iso; set timezone = utc; set intervalstyle = postgres; set extra_float_digits = 3; set bytea_output = hex;
do $$ begin perform setseed(0.25); end $$;
create temp table found(type_oid oid, type_modifier int, text text, expected text);
create temp table intervals as
  select make_interval(months => ((random() - 0.5) * 2e9)::int, days => ((random() - 0.5) * 2e9)::int) + ((random() - 0.5) * 1e18)::int8 * interval '1 microsecond' as i
    from generate_series(1, 60)
  union all select (case when n & 1 = 0 then 1 else -1 end * n % 7) * interval '1 month' + (case when n & 2 = 0 then 1 else -1 end * n % 5) * interval '1 day'
    + (case when n & 4 = 0 then 1 else -1 end * n % 3) * interval '1 hour 2 minutes 0.05 seconds' from generate_series(0, 63) n
  union all values (interval '0'), ('infinity'), ('-infinity'), ('-00:00:00.000001'), ('-2562047788:00:54.775807'), ('178956970 years 7 mons 2147483647 days');
insert into found select 1186, -1, i::text, case when isfinite(i) then 'P' || extract(year from i)::int || 'Y' || extract(month from i)::int || 'M'
  || extract(day from i)::int || 'DT' || extract(hour from i)::int8 || 'H' || extract(minute from i)::int || 'M'
  || case when extract(second from i) between -0.999999 and -0.000001 then '-0' else trunc(extract(second from i))::text end
  || rtrim(rtrim('.' || lpad(abs(mod(extract(microseconds from i), 1000000))::int::text, 6, '0'), '0'), '.') || 'S' else i::text end from intervals;
insert into found select 1266, -1, t::text, split_part(replace(t::text, '-', '+'), '+', 1)
  || regexp_replace(regexp_replace(substr(t::text, length(split_part(replace(t::text, '-', '+'), '+', 1)) + 1), '^(...)$', '\1:00'), '^.00:00$', 'Z') from
  (values (timetz '12:34:56.789012+02'), ('00:00:00+00'), ('23:59:59.999999-15:59:59'), ('24:00:00+02'), ('24:00:00+00'), ('12:00:00.5+05:30'), ('12:00:00-00:00:01')) z(t);
insert into found select 1562, -1, b::text, b::text from (values (varbit ''), ('0'), ('0001'), ('1101')) b(b);
insert into found select 1007, -1, a::text, a::text from (values ('{}'::int[]), ('{1,NULL}'), ('{{1,2},{3,4}}'), ('[0:1]={1,2}'), ('[-1:0][2:3]={{1,2},{3,4}}')) a(a);
insert into found select 1700, -1, n::text, n::text from (values (numeric 'NaN'), ('Infinity'), ('-Infinity'), ('1.500'), ('-0.0001'), (10::numeric ^ 1000 + 1), (1e-1000)) n(n);
insert into found select 790, -1, m::text, m::numeric::text from (values (money '-1234.56'), ('0'), ('92233720368547758.07')) m(m);
insert into found select 1082, -1, d::text, case when isfinite(d) then case when d < '0001-01-01' then '-' || lpad((abs(extract(year from d)) - 1)::text, 4, '0')
  when d > '9999-12-31' then '+' || extract(year from d) else lpad(extract(year from d)::text, 4, '0') end || '-' || lpad(extract(month from d)::text, 2, '0')
  || '-' || lpad(extract(day from d)::text, 2, '0') || 'Z' else d::text end from
  (values (date '2024-02-29'), ('4714-11-24 BC'), ('0044-03-15 BC'), ('5874897-12-31'), ('0099-01-01'), ('infinity'), ('-infinity')) d(d);
insert into found values (1083, -1, time '24:00:00', '24:00:00Z'), (1083, -1, time '12:34:56.78', '12:34:56.78Z'), (1083, 0, time '00:00:00', '00:00:00Z'),
  (1114, -1, timestamp '294276-12-31 23:59:59.999999', '+294276-12-31T23:59:59.999999Z'), (1114, -1, timestamp '2024-02-29 12:00:00', '2024-02-29T12:00:00Z'),
  (1114, -1, timestamp '0044-03-15 12:34:56.7 BC', '-0043-03-15T12:34:56.7Z'), (1114, -1, timestamp 'infinity', 'infinity'), (1114, -1, timestamp '-infinity', '-infinity');
table found;
-- What PostgreSQL reads as it stands. ISO 8601 has signs on years and the year 0, which PostgreSQL does not read: there the text says it.
do $$ begin
  if exists (select from found where type_oid = 1186 and expected::interval is distinct from text::interval) then raise exception 'interval'; end if;
  if exists (select from found where type_oid = 1266 and expected::timetz is distinct from text::timetz) then raise exception 'timetz'; end if;
  if exists (select from found where type_oid = 1562 and expected::varbit is distinct from text::varbit) then raise exception 'varbit'; end if;
  if exists (select from found where type_oid = 1007 and expected::int[] is distinct from text::int[]) then raise exception 'int[]'; end if;
  if exists (select from found where type_oid = 1700 and expected::numeric is distinct from text::numeric) then raise exception 'numeric'; end if;
  if exists (select from found where type_oid = 790 and expected::numeric::money is distinct from text::money) then raise exception 'money'; end if;
  if exists (select from found where type_oid = 1083 and expected::time is distinct from text::time) then raise exception 'time'; end if;
  if exists (select from found where type_oid = 1082 and expected ~ '^\d' and expected::date is distinct from text::date) then raise exception 'date'; end if;
  if exists (select from found where type_oid = 1114 and expected ~ '^[\di]' and expected::timestamp is distinct from text::timestamp) then raise exception 'timestamp'; end if;
end $$;
