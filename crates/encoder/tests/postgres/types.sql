-- The types that come with PostgreSQL and that a column of a user's can have, as SQL writes them in short; their OIDs, and those of their arrays.
-- psql -qAt -F $'\t' -v ON_ERROR_STOP=1 -f types.sql > types.tsv
select case oid::regtype::text when 'character' then 'character(n)' when 'time without time zone' then 'time'
    when 'timestamp without time zone' then 'timestamp' when 'time with time zone' then 'timetz' when 'timestamp with time zone' then 'timestamptz'
    else oid::regtype::text end, oid, typarray
  from pg_type
  where oid < 16384 and typnamespace = 'pg_catalog'::regnamespace and typtype in ('b', 'r', 'm')
    and not (typcategory = 'A' and typarray = 0) -- arrays
    and typname not in ('unknown', 'gtsvector', 'pg_node_tree', 'pg_ndistinct', 'pg_dependencies', 'pg_mcv_list', 'pg_brin_bloom_summary',
      'pg_brin_minmax_multi_summary') -- no value of these can be put in
  order by pg_type.oid;
