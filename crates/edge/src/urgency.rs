//! How urgent a request is for an origin whose budget is short: what [`model::budget::Class`] is made from.

use model::budget::{Class, Content};

use crate::h3::priority::Priority;
use crate::loaded::RuleAt;
use crate::object::Object;
use crate::request::Request;

/// The class of a request. `stored` is what there is under its key; `is_background` whether that may be served if the origin
/// cannot be asked. Who says itself that nobody waits for it (Priority, RFC 9218 §4.1) is believed: it comes later then.
///
/// Where the origin has no budget nothing is looked at.
pub(crate) fn class_of(
    at: &RuleAt,
    request: &Request,
    stored: Option<&Object>,
    is_background: bool,
) -> Class {
    if at.rule().origin.budget.is_none() {
        return Class::default();
    }
    let says_so =
        || request.fields.get("priority").is_some_and(|value| Priority::parse(value).is_background());
    let stored_type = stored.and_then(|stored| stored.field("content-type"));
    Class {
        is_background: is_background || says_so(),
        content: Content::of(request.method.is_safe(), &request.fields, stored_type),
    }
}
