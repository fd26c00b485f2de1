package affinity

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/limpet-go/limpet/internal/engineio"
)

// maxPeek is how many bytes of an answer are read ahead at most. The packet
// that opens a session comes first and has less than 200 bytes.
const maxPeek = 4096

// An opening is the packet that opens a session, found at the beginning of the
// answer to a poll. Its offsets count from the beginning of the body, also if
// the packet is part of a JavaScript string.
type opening struct {
	sid    string
	sidEnd int // offset of the sid's closing quote
	read   int // length of the head in which the opening was found

	// The length that stands before the packet: where its digits are, and its
	// value. lenEnd is 0 if the packet has no length before it.
	lenStart, lenEnd, length int
	binary                   bool // the digits are bytes from 0 to 9, not ASCII
}

// peekOpening reads ahead until the opening with its sid is there. It returns a
// nil opening if the answer has none.
func peekOpening(res *http.Response) (*engineio.Peeked, *opening) {
	var o *opening
	body := engineio.Peek(res, maxPeek, func(head []byte) bool {
		var more bool
		o, more = findOpening(head)
		return !more
	})
	return body, o
}

// findOpening looks for the opening at the beginning of a body:
//
//	0{"sid":"…",…}                      version 4
//	96:0{"sid":"…",…}2:40               version 3
//	\x00\x09\x06\xff0{"sid":"…",…}…     version 3, with binary packets
//	___eio[0]("96:0{\"sid\":…}2:40");   version 3, as JSONP
//
// It returns nil if the opening isn't there. more then tells that it may still be
// found when more of the body has been read.
func findOpening(body []byte) (o *opening, more bool) {
	text, offset, more := jsonp(body)
	if text == nil && more {
		return nil, true
	}
	o = &opening{read: len(body)}
	packet, ok := o.unframe(text)
	if !ok {
		return nil, more && packet == len(text)
	}
	if rest := text[packet:]; len(rest) < 2 || rest[0] != '0' || rest[1] != '{' {
		return nil, more && bytes.HasPrefix([]byte("0{"), rest)
	}
	end, incomplete := o.findSID(text[packet+1:])
	if end == 0 {
		return nil, more && incomplete
	}
	if o.lenEnd > 0 {
		o.lenStart, o.lenEnd = offset(o.lenStart), offset(o.lenEnd)
	}
	o.sidEnd = offset(packet + 1 + end)
	return o, false
}

// unframe reads the length before the packet, if there is one, and returns
// where the packet begins. If text isn't as expected, ok is false and packet is
// how many bytes of it were as expected.
func (o *opening) unframe(text []byte) (packet int, ok bool) {
	if bytes.HasPrefix(text, []byte("0{")) {
		return 0, true
	}
	zero, stop := byte('0'), byte(':')
	if len(text) > 0 && text[0] == 0 {
		o.binary, o.lenStart = true, 1
		zero, stop = 0, 255
	}
	for i := o.lenStart; i < len(text) && i < o.lenStart+6; i++ {
		switch c := text[i]; {
		case c == stop && i > o.lenStart:
			o.lenEnd = i
			return i + 1, true
		case c >= zero && c <= zero+9:
			o.length = 10*o.length + int(c-zero)
		default:
			return i, false
		}
	}
	return len(text), false
}

// findSID reads the JSON object at the beginning of text and returns the offset
// of the sid's closing quote, or 0 if there is no sid. incomplete tells that
// the object goes on and may still have one.
func (o *opening) findSID(text []byte) (end int, incomplete bool) {
	d := json.NewDecoder(bytes.NewReader(text))
	if _, err := d.Token(); err != nil { // the brace
		return 0, false
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return 0, unfinished(err)
		}
		if key == "sid" {
			value, err := d.Token()
			if err != nil {
				return 0, unfinished(err)
			}
			var ok bool
			if o.sid, ok = value.(string); !ok || o.sid == "" {
				return 0, false
			}
			return int(d.InputOffset()) - 1, false
		}
		var skipped json.RawMessage
		if err := d.Decode(&skipped); err != nil {
			return 0, unfinished(err)
		}
	}
	_, err := d.Token()
	return 0, unfinished(err)
}

// unfinished tells whether a JSON decoder failed only because its input ended.
func unfinished(err error) bool { return err == io.EOF || err == io.ErrUnexpectedEOF }

// extend returns body with tag behind the sid and the packet's length
// corrected. The tag is ASCII and needs no escape in any of the forms.
func (o *opening) extend(body []byte, tag string) []byte {
	out := make([]byte, 0, len(body)+len(tag)+1)
	if o.lenEnd > 0 {
		// Version 3 counts UTF-16 code units in text and bytes in binary. For
		// the tag, which is ASCII, both are the same number.
		out = append(out, body[:o.lenStart]...)
		digits := strconv.AppendInt(nil, int64(o.length+len(tag)), 10)
		if o.binary {
			for i := range digits {
				digits[i] -= '0'
			}
		}
		out = append(out, digits...)
	}
	out = append(out, body[o.lenEnd:o.sidEnd]...)
	out = append(out, tag...)
	return append(out, body[o.sidEnd:]...)
}

// jsonp returns the text in a body of the form ___eio[N]("…"), unescaped.
// offset returns where in the body a byte of the text comes from. A body of
// another form is its own text. more tells that the text isn't complete.
func jsonp(body []byte) (text []byte, offset func(int) int, more bool) {
	const start = "___eio["
	if !bytes.HasPrefix(body, []byte(start)) {
		same := func(i int) int { return i }
		if len(body) < len(start) && bytes.HasPrefix([]byte(start), body) {
			return nil, same, true
		}
		return body, same, true
	}
	i := len(start)
	for i < len(body) && body[i] >= '0' && body[i] <= '9' {
		i++
	}
	const open = `]("`
	if rest := body[i:]; !bytes.HasPrefix(rest, []byte(open)) {
		return nil, nil, bytes.HasPrefix([]byte(open), rest)
	}
	text, from, more := unescapeJS(body, i+len(open))
	return text, func(i int) int { return from[i] }, more
}

// unescapeJS decodes the JavaScript string in body that begins at body[i],
// behind its opening quote. from has the offset in body of each byte of text.
// more tells that the string doesn't end in body.
func unescapeJS(body []byte, i int) (text []byte, from []int, more bool) {
	for i < len(body) {
		at, c := i, body[i]
		i++
		var char []byte
		switch {
		case c == '"':
			return text, from, false
		case c != '\\':
			char = body[at:i]
		case i == len(body):
			return text, from, true
		case body[i] == 'u':
			if len(body) < i+5 {
				return text, from, true
			}
			n, err := strconv.ParseUint(string(body[i+1:i+5]), 16, 16)
			if err != nil {
				return text, from, false
			}
			r := rune(n)
			if utf16.IsSurrogate(r) {
				r = utf8.RuneError // a surrogate pair, which is in no sid
			}
			char = utf8.AppendRune(nil, r)
			i += 5
		default:
			char = []byte{body[i]}
			if plain, ok := escapes[body[i]]; ok {
				char[0] = plain
			}
			i++
		}
		for range char {
			from = append(from, at)
		}
		text = append(text, char...)
	}
	return text, from, true
}

// escapes has the escapes of JSON that stand for another character than their
// own.
var escapes = map[byte]byte{'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}
