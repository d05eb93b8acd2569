//! Backends and their probes as origins, and what else stands outside of subroutines.

use super::Reader;
use super::lexer::Statement;
use super::site::SURROGATE_CONTROL;
use crate::draft::{Keys, quote};
use crate::ledger::Id;

impl Reader<'_> {
    pub(super) fn declarations(&mut self, program: &[Statement]) {
        for statement in program {
            if let Some(name) = statement.name_of("probe") {
                let keys = self.probe(statement);
                self.probes.insert(name.to_owned(), keys);
                self.ledger.mapped(statement.id, "origin_options.health");
            }
        }
        for statement in program {
            match statement.words().first().copied() {
                Some("vcl") => self.ledger.not_needed(statement.id, "the version of the language"),
                Some("import") => self
                    .ledger
                    .not_mapped(statement.id, "modules are not loaded: see what is said of their calls"),
                Some("include") => self.ledger.not_mapped(
                    statement.id,
                    "the file is not part of this text: import it by itself, or put it here",
                ),
                Some("acl") => self.not_mapped(
                    statement,
                    "rules do not know who asks: block lists networks; purges need a token",
                ),
                Some("backend") => self.backend(statement),
                _ => {}
            }
        }
    }

    fn backend(&mut self, statement: &Statement) {
        let Some(name) = statement.name_of("backend") else { return };
        let (mut keys, mut host, mut port) = (Keys::default(), String::new(), "80".to_owned());
        let mut ids = vec![statement.id];
        for field in &statement.block {
            let words = field.words();
            let (Some(key), Some(value)) = (words.first().copied(), field.value()) else { continue };
            let id = [field.id];
            match key {
                ".host" => {
                    host = value.to_owned();
                    ids.push(field.id);
                }
                ".port" => {
                    port = value.to_owned();
                    ids.push(field.id);
                }
                ".host_header" => self.map(&mut keys, "origin_options.host", quote(value), &id),
                ".connect_timeout" => self.time(&mut keys, "origin_options.timeouts.connect", field),
                ".first_byte_timeout" => self.time(&mut keys, "origin_options.timeouts.first_byte", field),
                ".between_bytes_timeout" => self.time(&mut keys, "origin_options.timeouts.idle", field),
                ".max_connections" => self.ledger.not_mapped(
                    field.id,
                    "write origin_options.budget with in_flight, for all edges together",
                ),
                ".probe" if field.block.is_empty() => {
                    self.ledger.mapped(field.id, "origin_options.health");
                    if let Some(probe) = self.probes.get(value).cloned() {
                        keys.extend(&probe);
                    }
                }
                ".path" => {
                    self.ledger.not_mapped(field.id, "origins are reached by TCP: have it listen on a port")
                }
                _ => {}
            }
        }
        for field in statement
            .block
            .iter()
            .filter(|field| field.words().first() == Some(&".probe") && !field.block.is_empty())
        {
            self.ledger.mapped(field.id, "origin_options.health");
            let probe = self.probe(field);
            keys.extend(&probe);
        }
        if host.is_empty() {
            self.ledger.not_mapped(statement.id, "it has no .host: name an origin");
            return;
        }
        let host = host.split_once(':').filter(|_| host.matches(':').count() == 1).map_or(
            &*host,
            |(bare, of_host)| {
                of_host.clone_into(&mut port);
                bare
            },
        );
        let port = if port == "80" || port == "http" { String::new() } else { format!(":{port}") };
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        self.map(&mut keys, "origin", quote(&format!("http://{host}{port}")), &ids);
        self.ledger.not_mapped(statement.id, SURROGATE_CONTROL);
        self.first.get_or_insert_with(|| name.to_owned());
        self.backends.insert(name.to_owned(), keys);
    }

    fn probe(&mut self, statement: &Statement) -> Keys {
        let mut keys = Keys::default();
        for field in &statement.block {
            let (Some(key), Some(value)) = (field.words().first().copied(), field.value()) else { continue };
            let id = &[field.id];
            match key {
                ".url" => self.map(&mut keys, "origin_options.health.path", quote(value), id),
                ".interval" => self.time(&mut keys, "origin_options.health.interval", field),
                ".timeout" => self.time(&mut keys, "origin_options.health.timeout", field),
                ".expected_response" => self.map(
                    &mut keys,
                    "origin_options.health.statuses",
                    value.parse::<u16>().map_or(quote(value), |code| code.to_string()),
                    id,
                ),
                ".threshold" | ".window" | ".initial" => {
                    self.ledger.not_mapped(
                        field.id,
                        "write down_after and up_after in origin_options.health: probes in a row count",
                    );
                }
                ".request" => self
                    .ledger
                    .not_mapped(field.id, "probes are GET requests: write origin_options.health.path"),
                _ => {}
            }
        }
        keys
    }

    fn map(&mut self, keys: &mut Keys, key: &str, value: impl Into<String>, from: &[Id]) {
        keys.set(key, value, from);
        from.iter().for_each(|id| self.ledger.mapped(*id, key));
    }

    fn time(&mut self, keys: &mut Keys, key: &str, field: &Statement) {
        match field.duration_ms() {
            Some(ms) => {
                let time = quote(&model::units::write_duration(std::time::Duration::from_millis(ms)));
                self.map(keys, key, time, &[field.id]);
            }
            None => self.ledger.not_mapped(field.id, format!("its time is computed: write {key}")),
        }
    }
}
