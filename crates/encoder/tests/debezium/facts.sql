with recursive base as (
  select oid, typname, typtype, typtype as kind, typbasetype, oid as base, -1 as modifier, typndims as dimensions from pg_type where typtype <> 'd'
  union all
  select t.oid, b.typname, t.typtype, b.kind, t.typbasetype, b.base,
         case when b.modifier <> -1 then b.modifier else t.typtypmod end, greatest(b.dimensions, t.typndims)
    from pg_type t join base b on t.typtype = 'd' and t.typbasetype = b.oid
), labels as (
  select enumtypid as oid, json_agg(enumlabel order by enumsortorder) as labels from pg_enum group by enumtypid
)
select json_build_object(
  'table', n.nspname || '.' || c.relname,
  'primary_key', (select json_agg(a.attname order by k.position) from pg_index i, unnest(i.indkey) with ordinality k(attnum, position)
                    join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum where i.indrelid = c.oid and i.indisprimary),
  'columns', json_agg(json_build_object('name', a.attname, 'not_null', a.attnotnull or t.typnotnull, 'type_oid', a.atttypid::int8,
     'default', case when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid) end, 'type_name', b.typname, 'type_kind', t.typtype,
     'base_type_oid', b.base::int8, 'base_type_modifier', case when t.typtype = 'd' then b.modifier else a.atttypmod end,
     'base_type_kind', b.kind, 'labels', coalesce(l.labels, '[]'), 'dimensions', greatest(a.attndims, b.dimensions),
     'element', case when e.oid is not null then json_build_object('type_oid', eb.base::int8, 'type_name', eb.typname, 'type_kind', eb.kind,
        'type_modifier', eb.modifier, 'labels', coalesce(el.labels, '[]'), 'delimiter', e.typdelim) end) order by a.attnum))
from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  join pg_type t on t.oid = a.atttypid join base b on b.oid = a.atttypid left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
  join pg_type bt on bt.oid = b.base left join labels l on l.oid = b.base
  left join pg_type e on e.oid = bt.typelem and e.typarray = bt.oid left join base eb on eb.oid = e.oid left join labels el on el.oid = eb.base
where c.relkind in ('r','p') and n.nspname not in ('pg_catalog','information_schema') group by c.oid, n.nspname, c.relname order by c.oid
