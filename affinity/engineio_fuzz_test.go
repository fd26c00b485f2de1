package affinity_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/limpet-go/limpet/affinity"
)

// Any answer of a node, in any pieces, arrives unchanged or with a tag in its sid.
// Then the sid is found, and nothing else has changed but a length.
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
		tags := &affinity.EngineIO{Secrets: testSecrets}
		learns := &affinity.EngineIO{Mode: affinity.SIDModeLearn}
		get := func(e *affinity.EngineIO, r io.Reader) (body []byte, key string) {
			res := answer(opens("4"), r, len(sent))
			key, err := e.Bind(to("b1", res, find(t, e, res.Request)))
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
		// Only one run of bytes in the middle has changed, and a length before it.
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

// Only the genuine sid has a home. A sid that is no hit goes to the backend unchanged.
func FuzzEngineIOQuery(f *testing.F) {
	f.Add("EIO=4&transport=polling&sid=" + taggedSID)
	f.Add("EIO=4&sid=" + taggedSID + "A")
	f.Add("EIO=4&sid=" + taggedSID[2:])
	f.Add("sid=%73%31" + taggedSID[2:] + "&EIO=4&sid=x&;=%zz&&=&sid")
	f.Add("s%69d=" + taggedSID + "&E%49O=4")
	f.Add("EIO=4&sid=" + strings.Repeat(".", 30))
	f.Add("EIO=3&sid=s1&EIO=4")
	f.Add("sid=" + taggedSID)
	f.Add("sid=&sid=" + taggedSID + "&EIO=")
	e := &affinity.EngineIO{Secrets: testSecrets}
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

// The tag of any sid and home is opened again and removed. If one byte of the
// tagged sid is changed, it has no home.
func FuzzEngineIOTag(f *testing.F) {
	f.Add("s1", "b1", uint(3), byte(1))
	f.Add("a.b", strings.Repeat("n", 64), uint(70), byte(' '))
	f.Add("s1.MgICspF9JCqThP9fw77mNdhY", "b1", uint(0), byte(0x80))
	f.Add("\"\\\n\u00e4", "a:b", uint(9), byte('\n'))
	e := &affinity.EngineIO{Secrets: [][]byte{testSecrets[0], []byte("the one before, which opens as well as ever")}}
	f.Fuzz(func(t *testing.T, sid, home string, at uint, change byte) {
		if sid == "" || len(sid) > 1024 || !utf8.ValidString(sid) || home == "" || len(home) > 64 || strings.Contains(home, "\x00") {
			t.Skip("no session of Engine.IO, or no backend's ID")
		}
		opening, _ := json.Marshal(map[string]string{"sid": sid})
		body := bound(t, e, answer(opens("4"), strings.NewReader("0"+string(opening)), -1), home)
		var opened struct{ Sid string }
		if err := json.Unmarshal([]byte(body[1:]), &opened); err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		for _, query := range []string{"EIO=4&sid=", "sid="} {
			r := get("/?" + query + url.QueryEscape(opened.Sid))
			found := find(t, e, r)
			if found.Status != affinity.Hit || found.Backend != home || !found.Fixed {
				t.Fatalf("%q at %q: Find(%q) = %+v", sid, home, opened.Sid, found)
			}
			if e.Rewrite(r, found); r.URL.Query().Get("sid") != sid {
				t.Errorf("%q at %q: %q reached the backend", sid, home, r.URL.RawQuery)
			}
			if change == 0 {
				continue
			}
			changed := []byte(opened.Sid)
			changed[at%uint(len(changed))] ^= change
			if found := find(t, e, get("/?"+query+url.QueryEscape(string(changed)))); found.Status == affinity.Hit || found.Backend != "" || found.Fixed {
				t.Errorf("%q at %q: Find(%q) = %+v", sid, home, changed, found)
			}
		}
	})
}
