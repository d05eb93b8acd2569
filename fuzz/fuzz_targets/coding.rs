//! Any Accept-Encoding, preconditions and stored head: nobody gets a coding that he refuses, what a 304 confirms can be
//! decoded, heads are whole blocks, and tags lead back to the origin's own.

#![no_main]

use libfuzzer_sys::fuzz_target;
use semantics::Fields;
use semantics::coding::{
    Accepted, Form, fields_of, may_encode, restore_tags, translate, write_head, write_tag,
};

const REQUEST: [&str; 4] = ["Accept-Encoding", "If-None-Match", "If-Match", "Cache-Control"];
const RESPONSE: [&str; 6] = ["ETag", "Vary", "Content-Type", "Content-Encoding", "Cache-Control", "Digest"];

fn fields(names: &[&str], lines: &[(u8, &[u8])]) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in lines.iter().take(64) {
        let _ = fields.append(names[usize::from(*name) % names.len()], value);
    }
    fields
}

fuzz_target!(|input: (u8, Vec<(u8, &[u8])>, Vec<(u8, &[u8])>)| {
    let (form, request, response) = input;
    let (mut request, response) = (fields(&REQUEST, &request), fields(&RESPONSE, &response));
    let form = Form::ALL.get(usize::from(form)).copied();
    let accepted = Accepted::of(&request);
    if let Some(best) = accepted.best(Form::ALL, Form::coding) {
        assert!(accepted.weight(best.coding()) > 0);
    }
    let _ = may_encode(response.as_block());
    let mut block = Vec::new();
    write_head(&mut block, response.as_block(), form);
    assert_eq!(fields_of(response.as_block(), form).as_block(), &block[..]);
    if let Some(etag) = response.get("etag") {
        let (_, confirmed) = translate(&request, etag, &accepted, None);
        assert!(confirmed.is_none_or(|form| accepted.weight(form.coding()) > 0));
        if let Some(form) = form {
            let mut tag = Vec::new();
            write_tag(&mut tag, etag, form);
            let mut sent: Fields = [("If-Match", &tag[..])].into_iter().collect();
            restore_tags(&mut sent);
            let single = !etag.is_empty() && !etag[..etag.len() - 1].contains(&b'"') && !etag.contains(&b',');
            assert!(!single || sent.get("if-match") == Some(etag), "{tag:?}");
        }
    }
    restore_tags(&mut request);
});
