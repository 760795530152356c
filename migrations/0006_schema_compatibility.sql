-- Which programs understand this schema.
--
-- A program's version is the newest migration that it was built with. It works with a database that has this migration, and
-- with newer ones as long as understood_from is not above its own version. So a migration that older programs can't work with
-- (a column renamed or dropped, a new one without a default) ends with
--     UPDATE schema_compatibility SET understood_from = <its own number>;

CREATE TABLE schema_compatibility (
    is_only_row     boolean CONSTRAINT schema_compatibility_pkey PRIMARY KEY DEFAULT true,
    understood_from bigint  NOT NULL,
    CONSTRAINT schema_compatibility_one_row CHECK (is_only_row)
);

COMMENT ON TABLE  schema_compatibility                 IS 'Which programs understand this schema: one row.';
COMMENT ON COLUMN schema_compatibility.is_only_row     IS 'Keeps it at one row.';
COMMENT ON COLUMN schema_compatibility.understood_from IS 'The oldest migration whose programs still understand this schema.';

INSERT INTO schema_compatibility (understood_from) VALUES (6);
