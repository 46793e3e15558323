-- A table to stream, made when the database is created.
CREATE TABLE orders (
    id        bigint PRIMARY KEY,
    what      text NOT NULL,
    placed_at timestamptz NOT NULL DEFAULT now()
);
