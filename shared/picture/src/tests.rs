//! Complete, damaged and empty images. The output of real encoders is tested in `ada2-sidecar`.

mod bounds;

use super::*;

fn chunk(kind: &[u8], data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap().to_be_bytes();
    [&length[..], kind, data, &[0; 4]].concat()
}

/// A PNG of this size, bit depth, colour type and interlacing over these bytes.
fn png_of(size: [u32; 2], kind: [u8; 3], data: &[u8]) -> Vec<u8> {
    let [width, height] = size.map(u32::to_be_bytes);
    let [depth, colour, interlaced] = kind;
    let head = [&width[..], &height, &[depth, colour, 0, 0, interlaced]].concat();
    let palette = if colour == 3 { chunk(b"PLTE", &[0; 3]) } else { Vec::new() };
    let signature = &b"\x89PNG\r\n\x1a\n"[..];
    [signature, &chunk(b"IHDR", &head), &palette, &chunk(b"IDAT", data), &chunk(b"IEND", b"")].concat()
}

fn png() -> Vec<u8> {
    png_of([2, 2], [8, 2, 0], b"x\x9cdeflated")
}

/// A JPEG with this frame and entropy-coded data, after a segment to skip.
fn jpeg_of(marker: u8, height: u16, width: u16, data: &[u8]) -> Vec<u8> {
    let ([h0, h1], [w0, w1]) = (height.to_be_bytes(), width.to_be_bytes());
    let frame = [0xFF, marker, 0, 11, 8, h0, h1, w0, w1, 1, 1, 0x11, 0];
    let scan = [0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 63, 0];
    [&[0xFF, 0xD8, 0xFF, 0xE0, 0, 4, 1, 2][..], &frame, &scan, data, &[0xFF, 0xD9]].concat()
}

fn jpeg() -> Vec<u8> {
    jpeg_of(0xC0, 8, 8, &[1, 2, 0xFF, 0x00, 3, 0xFF, 0xD0, 4])
}

fn riff(chunks: &[u8]) -> Vec<u8> {
    let size = u32::try_from(chunks.len() + 4).unwrap().to_le_bytes();
    [&b"RIFF"[..], &size, b"WEBP", chunks].concat()
}

fn part(kind: &[u8], data: &[u8]) -> Vec<u8> {
    let padding = &[0][..data.len() % 2];
    [kind, &u32::try_from(data.len()).unwrap().to_le_bytes(), data, padding].concat()
}

fn lossless(width: u32, height: u32, data: &[u8]) -> Vec<u8> {
    part(b"VP8L", &[&[0x2F][..], &((height - 1) << 14 | (width - 1)).to_le_bytes(), data].concat())
}

fn lossy(width: u16, height: u16, data: &[u8]) -> Vec<u8> {
    let head = [&[0x10, 0, 0, 0x9D, 1, 0x2A][..], &width.to_le_bytes(), &height.to_le_bytes()].concat();
    part(b"VP8 ", &[&head, data].concat())
}

fn three(number: u32) -> [u8; 3] {
    let [a, b, c, _] = number.to_le_bytes();
    [a, b, c]
}

fn canvas(width: u32, height: u32) -> Vec<u8> {
    part(b"VP8X", &[&[2, 0, 0, 0][..], &three(width - 1), &three(height - 1)].concat())
}

/// A frame of an animation at its canvas' corner.
fn frame(width: u32, height: u32, chunks: &[u8]) -> Vec<u8> {
    let head = [&[0; 6][..], &three(width - 1), &three(height - 1), &[0; 4]].concat();
    part(b"ANMF", &[&head, chunks].concat())
}

fn webp() -> Vec<u8> {
    riff(&lossless(3, 2, b"abc"))
}

fn extended() -> Vec<u8> {
    let alpha = part(b"ALPH", b"a");
    riff(&[canvas(17, 16), alpha.clone(), lossy(17, 16, b"ab"), part(b"EXIF", b"x")].concat())
}

fn animated() -> Vec<u8> {
    let second = [part(b"ALPH", b"a"), lossy(16, 16, b"abc")].concat();
    riff(&[canvas(20, 20), frame(3, 2, &lossless(3, 2, b"abcd")), frame(16, 16, &second)].concat())
}

fn all() -> [Vec<u8>; 5] {
    [png(), jpeg(), webp(), extended(), animated()]
}

#[test]
fn complete_images_are_detected() {
    assert_eq!(Format::detect(&png()), Ok(Format::Png));
    assert_eq!(Format::detect(&jpeg()), Ok(Format::Jpeg));
    assert_eq!(Format::detect(&webp()), Ok(Format::Webp));
    assert_eq!(Format::detect(&extended()), Ok(Format::Webp));
    assert_eq!(Format::detect(&animated()), Ok(Format::Webp));
    assert_eq!(Format::detect(b"<html>"), Err(InvalidImage::UnknownFormat));
    assert_eq!(Format::detect(b""), Err(InvalidImage::UnknownFormat));
}

#[test]
fn a_format_has_a_mime_type_an_extension_and_a_name() {
    for (format, names) in [
        (Format::Png, ("image/png", "png", "png")),
        (Format::Jpeg, ("image/jpeg", "jpg", "jpeg")),
        (Format::Webp, ("image/webp", "webp", "webp")),
    ] {
        assert_eq!((format.mime(), format.extension(), format.name()), names);
    }
}

#[test]
fn a_truncated_image_or_one_with_a_tail_is_invalid() {
    for complete in all() {
        for end in 0..complete.len() {
            assert!(Format::detect(&complete[..end]).is_err(), "cut at {end} of {}", complete.len());
        }
        assert!(Format::detect(&[&complete[..], b"tail"].concat()).is_err());
    }
}

#[test]
fn malformed_structures_are_refused() {
    let mut lying = png();
    lying[11] = 12; // the head's length
    assert!(Format::detect(&lying).is_err());
    for (at, byte) in [(2, 0xFE), (5, 1), (9, 0xD8), (9, 0xD9)] {
        let mut lying = jpeg();
        lying[at] = byte;
        assert!(Format::detect(&lying).is_err(), "{at} {byte:x}");
    }
    for at in [4, 12, 16] {
        let mut lying = webp();
        lying[at] ^= 2;
        assert!(Format::detect(&lying).is_err(), "{at}");
    }
    let filled = [&[0xFF, 0xD8, 0xFF, 0xFF, 0xE0, 0, 2, 0xFF, 1][..], &jpeg()[8..]].concat();
    assert_eq!(Format::detect(&filled), Ok(Format::Jpeg), "fill bytes and markers without length");
}

#[test]
fn the_head_of_the_deflated_data_may_lie_in_several_chunks_and_come_byte_by_byte() {
    let parts = |parts: &[&[u8]]| {
        let data: Vec<u8> = parts.iter().flat_map(|part| chunk(b"IDAT", part)).collect();
        [&png()[..33], &data, &chunk(b"IEND", b"")].concat()
    };
    for (data, good) in [
        (&[&b""[..], b"x", b"", b"\x9cdeflated"][..], true),
        (&[b"x\x9c", b"deflated"], true),
        (&[b"x", b"\x9ddeflated"], false),
    ] {
        let png = parts(data);
        assert_eq!(Format::detect(&png).is_ok(), good, "{data:?}");
        let mut walk = Scanner::default();
        for byte in &png {
            walk.feed(&[*byte]);
        }
        assert_eq!(walk.finish().is_ok(), good, "{data:?} byte by byte");
    }
}

#[test]
fn an_image_without_pixels_is_invalid() {
    let hollow = |format, bytes: &[u8], why: &str| {
        assert_eq!(Format::detect(bytes), Err(InvalidImage::NoPixels(format)), "{why}");
    };
    let (png, jpeg, webp) = (Format::Png, Format::Jpeg, Format::Webp);
    hollow(png, &png_of([0, 0], [8, 2, 0], b"x\x9cdeflated"), "0x0");
    hollow(png, &png_of([7, 0], [8, 2, 0], b"x\x9cdeflated"), "7x0");
    hollow(png, &png_of([0, 7], [8, 2, 1], b"x\x9cdeflated"), "0x7, interlaced");
    hollow(png, &png_of([60_000, 60_000], [8, 2, 0], b"x\x9cdeflated"), "60000x60000 over nothing");
    hollow(png, &png_of([8, 8], [8, 2, 0], b""), "an empty IDAT");
    hollow(png, &png_of([1, 1], [8, 2, 0], b"x\x9c\x03\0\0\0\0\x01"), "an IDAT of nothing, deflated");
    hollow(png, &png_of([2, 2], [8, 2, 0], b"not deflated at all"), "an IDAT that is not zlib");
    hollow(png, &png_of([2, 2], [8, 2, 0], b"x\x9ddeflated"), "a zlib head with a wrong check");
    hollow(png, &png_of([2, 2], [8, 2, 0], b"\x77\x9adeflated"), "another method than deflate");
    hollow(jpeg, &jpeg_of(0xC0, 0, 8, &[1]), "8x0");
    hollow(jpeg, &jpeg_of(0xC2, 8, 0, &[1]), "0x8");
    hollow(jpeg, &jpeg_of(0xC0, 8, 8, &[]), "a scan of nothing");
    hollow(jpeg, &jpeg_of(0xC0, 8, 8, &[0xFF, 0xD0, 0xFF, 0xD1]), "a scan of restarts");
    hollow(jpeg, &jpeg_of(0xC0, 60_000, 60_000, &[7; 1000]), "60000x60000 over 1 kB");
    hollow(jpeg, &jpeg_of(0xCA, 60_000, 60_000, &[7; 1000]), "the same with an arithmetic coder");
    hollow(webp, &riff(&lossy(0, 8, b"abc")), "0x8");
    hollow(webp, &riff(&lossy(8, 0, b"abc")), "8x0");
    hollow(webp, &riff(&lossy(16_383, 16_383, &[7; 1000])), "16383x16383 over 1 kB");
    hollow(webp, &riff(&lossless(9, 9, b"")), "lossless over nothing");
    hollow(webp, &riff(&canvas(9, 9)), "a canvas alone");
    hollow(webp, &riff(&[canvas(9, 9), frame(9, 9, b"")].concat()), "a frame of nothing");
    hollow(
        webp,
        &riff(&[canvas(60_000, 60_000), frame(3, 2, &lossless(3, 2, b"abcd"))].concat()),
        "a canvas",
    );
    let (scan, no_scan) =
        (&jpeg_of(0xC0, 8, 8, &[])[21..31], [&jpeg_of(0xC0, 8, 8, &[])[..21], &[0xFF, 0xD9]].concat());
    assert_eq!(scan[1], 0xDA);
    hollow(jpeg, &no_scan, "no scan");
}

#[test]
fn invalid_headers_are_refused() {
    let refused = |bytes: &[u8], why: &str| {
        assert!(matches!(Format::detect(bytes), Err(InvalidImage::Truncated(_))), "{why}");
    };
    for kind in [[3, 2, 0], [16, 3, 0], [1, 6, 0], [8, 1, 0], [8, 2, 2]] {
        refused(&png_of([2, 2], kind, b"x\x9cdeflated"), &format!("{kind:?}"));
    }
    let mut twice = png();
    twice.splice(33..33, png()[8..33].iter().copied());
    refused(&twice, "two heads");
    let palette = png_of([2, 2], [8, 3, 0], b"x\x9cdeflated");
    assert_eq!(Format::detect(&palette), Ok(Format::Png));
    refused(&[&palette[..33], &palette[48..]].concat(), "colours by number without a palette");
    let framed = jpeg();
    refused(&[&framed[..8], &framed[21..]].concat(), "a scan of no frame");
    refused(&[&framed[..21], &framed[8..]].concat(), "two frames");
    for (at, byte) in [(17, 0), (17, 2), (11, 12)] {
        let mut lying = jpeg();
        lying[at] = byte;
        refused(&lying, "components");
    }
    refused(&riff(&[canvas(9, 9), lossless(9, 8, b"abc")].concat()), "another size than its canvas");
    refused(&riff(&frame(3, 2, &lossless(3, 2, b"abcd"))), "a frame without a canvas");
    refused(&riff(&[canvas(2, 2), frame(3, 2, &lossless(3, 2, b"abcd"))].concat()), "beyond its canvas");
    refused(
        &riff(&[canvas(9, 9), frame(4, 2, &lossless(3, 2, b"abcd"))].concat()),
        "another size than its frame",
    );
    refused(&riff(&[webp()[12..].to_vec(), canvas(3, 2)].concat()), "a canvas after the image");
    for at in [20, 23] {
        let mut lying = riff(&lossy(8, 8, b"abc"));
        lying[at] ^= 1;
        refused(&lying, "no key frame, no start code");
    }
    let mut lying = webp();
    lying[20] = 0;
    refused(&lying, "no signature");
}

#[test]
fn the_least_data_of_an_interlaced_image_is_that_of_its_passes() {
    let least = |interlaced| {
        let fits = |data: usize| {
            let data = [&b"x\x9c"[..], &vec![7; data - 2]].concat();
            Format::detect(&png_of([4096; 2], [8, 2, interlaced], &data)).is_ok()
        };
        (48_000..49_000).find(|data| fits(*data)).unwrap()
    };
    // 4096 rows of 12,289 bytes; in passes the same pixels in 7,680 rows; behind both what zlib adds.
    assert_eq!(least(0), (4096_usize * 12_289).div_ceil(1032) + 6);
    assert_eq!(least(1), (4096_usize * 12_288 + 7680).div_ceil(1032) + 6);
}

proptest::proptest! {
    #[test]
    fn chunk_boundaries_do_not_matter(kind in 0..5usize, cuts: [u8; 4], at: usize, byte: u8) {
        let complete = all()[kind].clone();
        let mut damaged = complete.clone();
        damaged[at % complete.len()] = byte;
        for bytes in [complete, damaged] {
            let mut cuts = cuts.map(|cut| usize::from(cut) % (bytes.len() + 1));
            cuts.sort_unstable();
            let ends = cuts.iter().copied().chain([bytes.len()]);
            let mut walk = Scanner::default();
            ends.fold(0, |from, to| {
                walk.feed(&bytes[from..to]);
                to
            });
            proptest::prop_assert_eq!(walk.finish(), Format::detect(&bytes));
        }
    }

    #[test]
    fn byte_by_byte_is_as_at_once(kind in 0..5usize, at: usize, byte: u8) {
        let mut bytes = all()[kind].clone();
        let at = at % bytes.len();
        bytes[at] = byte;
        let mut walk = Scanner::default();
        for byte in &bytes {
            walk.feed(&[*byte]);
        }
        proptest::prop_assert_eq!(walk.finish(), Format::detect(&bytes));
    }

    #[test]
    fn no_bytes_panic(kind in 0..5usize, noise: Vec<u8>, at: usize, byte: u8) {
        let mut bytes = all()[kind].clone();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = Format::detect(&bytes);
        bytes.extend(noise);
        let _ = Format::detect(&bytes);
    }

    #[test]
    fn a_size_needs_enough_data(width: u32, height: u32, data in 0..2000usize, depth in 0..2usize) {
        let (width, height) = (width >> 1, height >> 1);
        let bytes = png_of([width, height], [[8, 16][depth], 6, 0], &vec![0; data]);
        let pixels = u128::from(width) * u128::from(height) * [4, 8][depth];
        if pixels == 0 || pixels > data as u128 * 1032 {
            proptest::prop_assert_eq!(Format::detect(&bytes), Err(InvalidImage::NoPixels(Format::Png)));
        }
    }
}
