package affinity_test

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/limpet-go/limpet/affinity"
)

// Whatever a node answers, in whatever pieces: it arrives as it was, or with a
// tag in a sid that is then found, and nothing else changed but a length.
func FuzzEngineIOAnswer(f *testing.F) {
	for _, tt := range openings {
		f.Add([]byte(strings.Replace(tt.body, "%s", "", 1)))
	}
	for _, s := range []string{
		"", "0", "0{", `0{"sid":"a\u0062\n\""}`, `0{"sid":"a`, `___eio[`, `___eio[0]("0{\"sid\":\"a\\u0062\"}")`, "\x00\x09\xff0{", "9:0{}",
		`___eio[]("\u00`, `0{"sid":"é"}`, "\x00\x00\x00\xff0{\"sid\":\"x\"}", `000:0{"sid":"x"}`, `0{"a":[[[{}]]],"sid":"x"`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, sent []byte) {
		tags := &affinity.EngineIO{Keys: testKeys}
		learns := &affinity.EngineIO{Mode: affinity.LearnSID}
		get := func(e *affinity.EngineIO, r io.Reader) (body []byte, key string) {
			res := answer(opens("4"), r, len(sent))
			key, err := e.Bind(res, find(t, e, res.Request), "b1")
			if err != nil {
				t.Fatal(err)
			}
			body, err = io.ReadAll(res.Body)
			if err != nil || int64(len(body)) != res.ContentLength {
				t.Fatalf("%d bytes of %d, %v", len(body), res.ContentLength, err)
			}
			return body, key
		}
		body, key := get(tags, bytes.NewReader(sent))
		same, learnt := get(learns, bytes.NewReader(sent))
		if !bytes.Equal(same, sent) {
			t.Errorf("learning, %q became %q", sent, same)
		}
		if pieces, _ := get(tags, iotest.OneByteReader(bytes.NewReader(sent))); !bytes.Equal(pieces, body) {
			t.Errorf("%q became %q at once and %q in pieces", sent, body, pieces)
		}
		if key != learnt || (key != "") == bytes.Equal(body, sent) {
			t.Fatalf("%q became %q; tagged %q, learnt %q", sent, body, key, learnt)
		}
		if key == "" {
			return
		}
		// The change is one run of bytes in the middle, and a length before it.
		end := 0
		for end < len(sent) && sent[len(sent)-1-end] == body[len(body)-1-end] {
			end++
		}
		tagEnd := len(body) - end
		dot := bytes.LastIndexByte(body[:tagEnd], '.')
		if tagEnd-dot < 24 { // the sid ends as the tag does
			dot = bytes.LastIndexByte(body[:min(len(body), tagEnd+26)], '.')
		}
		if dot < 0 || len(body) < dot+25 {
			t.Fatalf("%q became %q: no tag", sent, body)
		}
		rest := slices.Concat(body[:dot], body[dot+25:])
		if text := func(b []byte) []byte {
			return bytes.TrimLeft(b, "0123456789\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09")
		}; !bytes.Equal(text(rest), text(sent)) && !bytes.HasPrefix(sent, []byte("___eio")) {
			t.Errorf("%q became %q", sent, body)
		}
	})
}

// No sid has a home but the genuine one, and what isn't a hit is sent on as it is.
func FuzzEngineIOQuery(f *testing.F) {
	f.Add("EIO=4&transport=polling&sid=" + taggedSID)
	f.Add("EIO=4&sid=" + taggedSID + "A")
	f.Add("EIO=4&sid=" + taggedSID[2:])
	f.Add("sid=%73%31" + taggedSID[2:] + "&EIO=4&sid=x&;=%zz&&=&sid")
	f.Add("s%69d=" + taggedSID + "&E%49O=4")
	f.Add("EIO=4&sid=" + strings.Repeat(".", 30))
	f.Add("EIO=3&sid=s1&EIO=4")
	e := &affinity.EngineIO{Keys: testKeys}
	f.Fuzz(func(t *testing.T, query string) {
		r := &http.Request{Method: "GET", URL: &url.URL{Path: "/", RawQuery: query}, Header: http.Header{}}
		found := find(t, e, r.WithContext(t.Context()))
		out := r.Clone(t.Context())
		e.Rewrite(out, found)
		before, after := strings.Split(query, "&"), strings.Split(out.URL.RawQuery, "&")
		if len(before) != len(after) {
			t.Fatalf("%q became %q", query, out.URL.RawQuery)
		}
		hit := false
		for i, param := range before {
			name, value, _ := strings.Cut(param, "=")
			if n, err := url.QueryUnescape(name); err == nil {
				name = n
			}
			v, err := url.QueryUnescape(value)
			if name == "sid" && err == nil && v == taggedSID && found.Status == affinity.Hit {
				hit = true
				if got, err := url.ParseQuery(after[i]); err != nil || got.Get("sid") != "s1" {
					t.Errorf("%q became %q", param, after[i])
				}
			} else if after[i] != param {
				t.Errorf("%q became %q", param, after[i])
			}
		}
		if hit != (found.Status == affinity.Hit) || hit != (found.Backend == "b1") {
			t.Errorf("Find(%q) = %+v", query, found)
		}
	})
}
