with recursive base as (
  select oid, typname, typtype, typbasetype, oid as base, -1 as modifier from pg_type where typtype <> 'd'
  union all
  select t.oid, b.typname, t.typtype, t.typbasetype, b.base,
         case when b.modifier <> -1 then b.modifier else t.typtypmod end
    from pg_type t join base b on t.typtype = 'd' and t.typbasetype = b.oid
)
select json_build_object(
  'table', n.nspname || '.' || c.relname,
  'primary_key', (select json_agg(a.attname order by k.position) from pg_index i, unnest(i.indkey) with ordinality k(attnum, position)
                    join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum where i.indrelid = c.oid and i.indisprimary),
  'columns', json_agg(json_build_object('name', a.attname, 'not_null', a.attnotnull or t.typnotnull, 'type_oid', a.atttypid::int8,
     'default', case when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid) end, 'type_name', b.typname, 'type_kind', t.typtype,
     'base_type_oid', b.base::int8, 'base_type_modifier', case when t.typtype = 'd' then b.modifier else a.atttypmod end) order by a.attnum))
from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  join pg_type t on t.oid = a.atttypid join base b on b.oid = a.atttypid left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
where c.relkind in ('r','p') and n.nspname not in ('pg_catalog','information_schema') group by c.oid, n.nspname, c.relname order by c.oid
