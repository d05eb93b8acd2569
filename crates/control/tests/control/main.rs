//! Control over real sockets: every path, wrong input, scopes, idempotency, several controls, a journal that cannot be reached,
//! enrolment. Each answer is checked against the OpenAPI document.

#![expect(clippy::unwrap_used, reason = "what a test cannot do without ends it")]

mod budgets;
mod configurations;
mod controls;
mod dashboard;
mod nodes;
mod page_tests;
mod purges;
mod stage;
mod statistics;
mod strangers;
mod tokens;
