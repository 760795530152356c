-- The life of a show: it is drafted, put on sale, paused, cancelled or archived, is on sale in a window of time, and people
-- change it.

CREATE DOMAIN show_status AS text
    CONSTRAINT show_status_known CHECK (VALUE IN ('DRAFT', 'ON_SALE', 'PAUSED', 'CANCELLED', 'ARCHIVED'));

COMMENT ON DOMAIN show_status IS 'DRAFT (not yet on sale), ON_SALE (within its window), PAUSED, CANCELLED or ARCHIVED.';

-- Not `status`: statements of programs of an earlier version, which run meanwhile, join shows with bookings, whose status they
-- do not qualify.
ALTER TABLE shows
    ADD COLUMN sale_status show_status NOT NULL DEFAULT 'ON_SALE',
    ADD COLUMN sales_start instant,
    ADD COLUMN sales_end   instant,
    ADD COLUMN edition     bigint NOT NULL DEFAULT 1,
    ADD CONSTRAINT shows_sales_end_after_start CHECK (sales_end > sales_start);

COMMENT ON COLUMN shows.seats       IS 'Total seats. Never fewer than are in use.';
COMMENT ON COLUMN shows.sale_status IS 'Whether seats can be taken. Bookings that were made can be confirmed, extended and cancelled in each.';
COMMENT ON COLUMN shows.sales_start IS 'Instant from which seats can be taken; NULL: always.';
COMMENT ON COLUMN shows.sales_end   IS 'Instant from which seats can no longer be taken; NULL: never.';
COMMENT ON COLUMN shows.edition     IS 'Number of times that people changed the show, from 1. Sales do not change it.';
