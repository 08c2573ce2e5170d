//! What must hold of the parsers, whatever their input. `tests/fuzz` looks for inputs for which it does not hold; the test
//! below repeats the inputs that are kept there. Compiled for these two only.

mod headers;
mod pictures;
mod requests;

use service::settings::yaml_value;

pub use crate::{
    backend::fuzzing::{event_stream, image_response},
    config::fuzzing::{backends_file, env_file},
    routes::gallery::fuzzing::list_query,
    store::fuzzing::record,
};
pub use headers::{forwarding, host_and_origin};
pub use pictures::picture;
pub use requests::{form_request, json_request};

/// YAML: what is accepted is accepted as JSON, too, with the same values.
pub fn yaml(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(value) = yaml_value(text) else { return };
    if let Ok(again) = yaml_value(&value.to_string()) {
        assert_eq!(again, value);
    }
}

/// The first line, and what follows it.
fn first_line(data: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr(b'\n', data).unwrap_or(data.len());
    (&data[..end], data.get(end + 1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use fakes::fuzz_seeds::repeat;

    #[test]
    fn the_kept_inputs_hold() {
        repeat("backends_file", super::backends_file);
        repeat("env_file", super::env_file);
        repeat("event_stream", super::event_stream);
        repeat("form_request", super::form_request);
        repeat("forwarding", super::forwarding);
        repeat("host_and_origin", super::host_and_origin);
        repeat("image_response", super::image_response);
        repeat("json_request", super::json_request);
        repeat("list_query", super::list_query);
        repeat("picture", super::picture);
        repeat("record", super::record);
        repeat("yaml", super::yaml);
    }
}
