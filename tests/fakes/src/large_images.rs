//! Images that are small to send and large to decode, and such that are nothing.

use std::sync::LazyLock;

use bytes::Bytes;

use crate::form;

/// A PNG of 40 megapixels, all black, of four channels of 16 bits: 320 MB decoded, 1/1000 of that as a file.
pub static FORTY_MEGAPIXELS: LazyLock<Bytes> = LazyLock::new(|| flat(8000, 5000).into());

/// A transparent black PNG of four channels of 16 bits, written row by row.
pub fn flat(width: u32, height: u32) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Sixteen);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header().expect("memory takes it");
    let mut rows = writer.stream_writer().expect("memory takes it");
    let row = vec![0; width as usize * 8];
    for _ in 0..height {
        std::io::Write::write_all(&mut rows, &row).expect("memory takes it");
    }
    rows.finish().expect("all rows are there");
    writer.finish().expect("memory takes it");
    file
}

/// A PNG as far as its structure goes, of about so many bytes.
pub fn png_of(bytes: usize) -> Vec<u8> {
    let chunk = |kind: &[u8], data: &[u8]| {
        let length = u32::try_from(data.len()).expect("some MiB").to_be_bytes();
        [&length[..], kind, data, &[0; 4]].concat()
    };
    let head = [0, 0, 0, 1, 0, 0, 0, 1, 8, 2, 0, 0, 0];
    let signature = &b"\x89PNG\r\n\x1a\n"[..];
    // Behind zlib's head, which is looked at, nothing is read.
    let mut pixels = vec![7; bytes];
    pixels.iter_mut().zip(*b"x\x9c").for_each(|(byte, head)| *byte = head);
    [signature, &chunk(b"IHDR", &head), &chunk(b"IDAT", &pixels), &chunk(b"IEND", b"")].concat()
}

/// The same PNG with a head that says 0x0.
pub fn hollow(png: &[u8]) -> Vec<u8> {
    let mut png = png.to_vec();
    png[16..24].fill(0);
    png
}

/// A complete request for an edit of this image, as bytes.
pub fn edit_of(image: &[u8], fields: &[(&str, &str)]) -> Vec<u8> {
    let texts: Vec<_> = fields.iter().map(|(name, value)| (form::text(name), value.as_bytes())).collect();
    let file = form::file("image", "a.png");
    let mut parts: Vec<form::RawPart<'_>> =
        texts.iter().map(|(head, value)| (head.as_str(), *value)).collect();
    parts.push((&file, image));
    let body = form::form(&parts);
    let head = format!(
        "POST /v1/images/edits HTTP/1.1\r\nHost: a\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n",
        form::KIND,
        body.len()
    );
    [head.into_bytes(), body].concat()
}
