"""Example of an `exec` function in Python: a picture on stdin, a smaller one on stdout.

Reads binary PPM (P6), binary PGM (P5) and uncompressed 24-bit BMP, and writes PPM (P6) whose longer side is at most
THUMBNAIL_SIDE pixels (default 128). Every pixel of the result is the average of the box of pixels it stands for.
Smaller pictures keep their size. Standard library only:

    [tenant.acme.function.thumbnail]
    runtime = "exec"
    layout = "host"
    dir = "/srv/functions/thumbnail"
    command = ["/usr/bin/python3", "-I", "/function/thumbnail.py"]
    payload_max = "16MiB"
    env.THUMBNAIL_SIDE = "128"

Exit 0 means that stdout is the answer. A picture that cannot be read ends with exit 2 and one line on stderr, the log.
The header of a picture is a stranger's: what it announces is checked against limits, and against what is there, before
any memory is taken for it.
"""

import os
import struct
import sys

SIDE_DEFAULT = 128
# More would not be thumbnails, and the work grows with it.
SIDE_MAX = 1024
DIMENSION_MAX = 32_768
# 48 MB as 24-bit pixels: within the largest payload, and about 2 s of work.
PIXELS_MAX = 16 * 1024 * 1024
PAYLOAD_MAX = 64 * 1024 * 1024
# A header with comments is still short; a search for its end must be too.
HEADER_MAX = 4096


class Refused(Exception):
    """Why there is no thumbnail, in words for the log."""


def check_size(width, height):
    if width < 1 or height < 1:
        raise Refused(f"the picture is {width} x {height} pixels: nothing to see")
    if max(width, height) > DIMENSION_MAX or width * height > PIXELS_MAX:
        raise Refused(f"the picture is {width} x {height} pixels, the most is {PIXELS_MAX} and {DIMENSION_MAX} a side")


def check_length(data, needed):
    if len(data) < needed:
        raise Refused(f"the picture is cut short: {needed} bytes expected, {len(data)} there")


def netpbm_numbers(data):
    """Width, height and maximum of a P5 or P6 header, and where the pixels start."""
    head, numbers, at = bytes(data[:HEADER_MAX]), [], 2
    while len(numbers) < 3:
        start = at
        while head[at : at + 1].isspace():
            at += 1
        if head[at : at + 1] == b"#":
            end = head.find(b"\n", at)
            if end < 0:
                raise Refused("the header has a comment without an end")
            at = end
            continue
        end = at
        while head[end : end + 1].isdigit() and end - at < 10:
            end += 1
        if end == at or at == start:
            raise Refused("the header does not hold width, height and maximum as decimal numbers")
        numbers.append(int(head[at:end]))
        at = end
    if not head[at : at + 1].isspace():
        raise Refused("the header does not end with one space or line break")
    return *numbers, at + 1


def read_netpbm(data, channels):
    """Width, height, and a function from a row's number to its RGB bytes."""
    width, height, maximum, start = netpbm_numbers(data)
    check_size(width, height)
    if not 1 <= maximum <= 255:
        raise Refused(f"the maximum of a pixel is {maximum}, only 1 to 255 is read")
    stride = width * channels
    check_length(data, start + height * stride)
    scale = bytes(min(255, value * 255 // maximum) for value in range(256))

    def row(number):
        at = start + number * stride
        line = data[at : at + stride]
        if maximum != 255:
            line = line.translate(scale)
        if channels == 3:
            return line
        grey = bytearray(width * 3)
        grey[0::3] = grey[1::3] = grey[2::3] = line
        return grey

    return width, height, row


def read_bmp(data):
    """As read_netpbm."""
    check_length(data, 54)
    start, info_size, width, height, _, depth, compression = struct.unpack_from("<10xIIiiHHI", data)
    if info_size < 40 or depth != 24 or compression != 0:
        raise Refused(f"the BMP has {depth} bits a pixel and compression {compression}, only 24 and 0 are read")
    # A negative height means that the top row comes first.
    is_top_down, height = height < 0, abs(height)
    check_size(width, height)
    if start < 14 + info_size:
        raise Refused(f"the BMP says its pixels start at byte {start}, inside its header")
    stride = (width * 3 + 3) // 4 * 4
    check_length(data, start + height * stride)

    def row(number):
        at = start + (number if is_top_down else height - 1 - number) * stride
        line = bytearray(data[at : at + width * 3])
        line[0::3], line[2::3] = line[2::3], line[0::3]  # stored as blue, green, red
        return line

    return width, height, row


def read_picture(data):
    if len(data) > PAYLOAD_MAX:
        raise Refused(f"the payload has more than {PAYLOAD_MAX} bytes")
    kind = bytes(data[:2])
    if kind == b"P6":
        return read_netpbm(data, 3)
    if kind == b"P5":
        return read_netpbm(data, 1)
    if kind == b"BM":
        return read_bmp(data)
    if not data:
        raise Refused("the payload is empty: expected a PPM (P6), PGM (P5) or 24-bit BMP")
    raise Refused(f"the payload begins with {kind!r}: neither PPM (P6), PGM (P5) nor BMP")


def target_size(width, height, side):
    longest = max(width, height)
    if longest <= side:
        return width, height
    return max(1, width * side // longest), max(1, height * side // longest)


def shrink(width, height, row, new_width, new_height):
    """The pixels of the smaller picture, by averages; the boxes cover every pixel once."""
    if (width, height) == (new_width, new_height):
        return b"".join(map(row, range(height)))
    edges = [x * width // new_width for x in range(new_width + 1)]
    result = bytearray()
    for y in range(new_height):
        top, bottom = y * height // new_height, (y + 1) * height // new_height
        sums = [0] * (new_width * 3)
        for number in range(top, bottom):
            line = row(number)
            for channel in range(3):
                values = line[channel::3]
                for x in range(new_width):
                    sums[x * 3 + channel] += sum(values[edges[x] : edges[x + 1]])
        for x in range(new_width):
            count = (edges[x + 1] - edges[x]) * (bottom - top)
            result += bytes((total + count // 2) // count for total in sums[x * 3 : x * 3 + 3])
    return bytes(result)


def side_wanted():
    text = os.environ.get("THUMBNAIL_SIDE", str(SIDE_DEFAULT))
    if not text.isascii() or not text.isdigit() or len(text) > 6 or not 1 <= int(text) <= SIDE_MAX:
        raise Refused(f"THUMBNAIL_SIDE is {text[:20]!r}: expected 1 to {SIDE_MAX}")
    return int(text)


def main():
    try:
        side = side_wanted()
        # One more than may be there, to see that it is too much.
        width, height, row = read_picture(sys.stdin.buffer.read(PAYLOAD_MAX + 1))
        new_width, new_height = target_size(width, height, side)
        pixels = shrink(width, height, row, new_width, new_height)
    except Refused as error:
        print(f"thumbnail: {error}", file=sys.stderr)
        return 2
    sys.stdout.buffer.write(b"P6\n%d %d\n255\n" % (new_width, new_height) + pixels)
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
