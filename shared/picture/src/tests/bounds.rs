//! Images just within a bound, and just beyond it.

use super::*;

fn is_image(bytes: &[u8], why: &str) {
    assert!(Format::detect(bytes).is_ok(), "{why}: {:?}", Format::detect(bytes));
}

fn is_damaged(bytes: &[u8], why: &str) {
    assert!(matches!(Format::detect(bytes), Err(InvalidImage::Truncated(_))), "{why}");
}

fn is_hollow(bytes: &[u8], why: &str) {
    assert!(matches!(Format::detect(bytes), Err(InvalidImage::NoPixels(_))), "{why}");
}

#[test]
fn a_format_is_known_by_its_first_bytes_alone() {
    assert_eq!(Format::detect(&png()[..8]), Err(InvalidImage::Truncated(Format::Png)));
    assert_eq!(Format::detect(&jpeg()[..3]), Err(InvalidImage::Truncated(Format::Jpeg)));
    is_damaged(&riff(&[&webp()[12..], b"EXI"].concat()), "a part of a chunk's head at the end");
}

#[test]
fn every_kind_of_png_is_known() {
    for (colour, depths) in
        [(0, &[1, 2, 4, 8, 16][..]), (2, &[8, 16]), (3, &[1, 2, 4, 8]), (4, &[8, 16]), (6, &[8, 16])]
    {
        for depth in depths {
            is_image(&png_of([2, 2], [*depth, colour, 0], b"x\x9cdeflated"), &format!("{colour} {depth}"));
        }
    }
    let end = png().len() - 12;
    is_damaged(&[&png()[..end], &chunk(b"IEND", b"x")].concat(), "data in the last chunk");
}

#[test]
fn a_png_chunk_is_at_most_2_gib_long() {
    let block = vec![0; 1 << 20];
    for (length, is_valid) in [((1_u32 << 31) - 1, true), (1 << 31, false)] {
        let mut scanner = Scanner::default();
        scanner.feed(&png()[..33]);
        scanner.feed(&[&length.to_be_bytes()[..], b"tEXt"].concat());
        let mut left = length as usize + 4;
        while left > 0 {
            let next = left.min(block.len());
            scanner.feed(&block[..next]);
            left -= next;
        }
        scanner.feed(&png()[33..]);
        assert_eq!(scanner.finish().is_ok(), is_valid, "{length}");
    }
}

#[test]
fn a_jpeg_has_as_many_components_as_its_frame_is_long() {
    let three = [0xFF, 0xC0, 0, 17, 8, 0, 8, 0, 8, 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1];
    is_image(&[&jpeg()[..8], &three, &jpeg()[21..]].concat(), "three components");
    is_damaged(&[&jpeg()[..8], &[0xFF, 0xC0, 0, 2], &jpeg()[8..]].concat(), "a frame of nothing");
    for code in [0x00, 0xD8, 0xD9, 0xDA] {
        let early = [&jpeg()[..8], &[0xFF, code, 0, 2], &jpeg()[8..]].concat();
        is_damaged(&early, &format!("{code:x} before the frame"));
    }
}

#[test]
fn a_jpeg_has_a_byte_for_32_blocks_or_4096_if_its_coder_is_arithmetic() {
    is_image(&jpeg_of(0xC0, 8, 8, &[0xFF, 0x00]), "a stuffed byte is data");
    is_image(&jpeg_of(0xC2, 8, 256, &[1]), "32 blocks");
    is_hollow(&jpeg_of(0xC2, 8, 257, &[1]), "33 blocks");
    is_image(&jpeg_of(0xC9, 512, 512, &[1]), "4096 blocks");
    is_hollow(&jpeg_of(0xC9, 512, 513, &[1]), "4160 blocks");
}

#[test]
fn a_lossy_webp_has_room_for_its_first_partition_and_a_byte_for_16_blocks() {
    let with_partition = |length: u32| {
        let mut image = riff(&lossy(16, 16, &[7; 100]));
        image[20..23].copy_from_slice(&three(length << 5 | 0x10));
        image
    };
    is_image(&with_partition(100), "as long as the data");
    is_damaged(&with_partition(101), "longer");
    is_image(&riff(&lossy(256, 192, b"ab")), "192 blocks in 12 bytes");
    is_hollow(&riff(&lossy(256, 193, b"ab")), "208 blocks in 12 bytes");
}

#[test]
fn the_frames_of_an_animation_lie_on_its_canvas() {
    let at = |[x, y]: [u32; 2], on: [u32; 2]| {
        let head = [&three(x)[..], &three(y), &three(2), &three(1), &[0; 4]].concat();
        let frame = part(b"ANMF", &[head, lossless(3, 2, b"abcd")].concat());
        riff(&[canvas(on[0], on[1]), frame].concat())
    };
    is_image(&at([1, 2], [5, 6]), "offsets count twice");
    is_damaged(&at([2, 2], [5, 6]), "beyond the right edge");
    is_damaged(&at([1, 3], [5, 6]), "beyond the lower edge");
    is_damaged(&at([0, 0], [3, 1]), "higher than the canvas");
    is_image(&at([0, 0], [1 << 14, 1 << 14]), "the largest canvas");
    is_hollow(&at([0, 0], [(1 << 14) + 1, 2]), "a wider one");
    is_hollow(&at([0, 0], [3, (1 << 14) + 1]), "a higher one");
    let nested = frame(9, 9, &frame(3, 2, &lossless(3, 2, b"abcd")));
    is_damaged(&riff(&[canvas(9, 9), nested].concat()), "a frame in a frame");
    let late = [lossless(3, 2, b"abc"), part(b"VP8X", b"")].concat();
    is_damaged(&riff(&late), "an empty canvas after the image");
}
