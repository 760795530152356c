//! PostgreSQL access: connections, migrations, leadership, and the errors that are worth a retry.

pub mod citus;
mod connect;
mod database;
mod error;
mod last_write;
mod leadership;
mod not_ready;
mod open_transaction;
mod password;
mod pooler;
mod primary;
mod reads;
mod ready;
mod servers;
mod session;
mod settings;
mod statements;
mod timeouts;
pub mod usage;

pub(crate) use self::open_transaction::OpenTransaction;
pub use self::{
    citus::Engine,
    connect::connect,
    database::{Database, DatabaseArgs},
    error::{Error, expect_row, expect_rows},
    last_write::LastWrite,
    leadership::Leadership,
    not_ready::NotReady,
    reads::read,
    ready::ready,
    session::{Session, Work},
    statements::forget as forget_statements,
    timeouts::in_time,
};
