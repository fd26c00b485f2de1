package affinity_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/affinity"
)

func BenchmarkEngineIOFind(b *testing.B) {
	e := &affinity.EngineIO{Secrets: testSecrets}
	bound(b, e, answer(opens("3"), strings.NewReader(`13:0{"sid":"s1"}2:40`), 20), "b1")
	for _, bm := range []struct {
		name string
		r    *http.Request
	}{
		{"tagged", polls("4", taggedSID)},
		{"learnt", polls("3", "s1")},
		{"no session", opens("4")},
		{"no Engine.IO", get("/chat/history?room=lobby&before=1234567")},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := e.Find(bm.r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEngineIORewrite(b *testing.B) {
	e := &affinity.EngineIO{Secrets: testSecrets}
	r := polls("4", taggedSID)
	found, out := find(b, e, r), r.Clone(context.Background())
	b.ReportAllocs()
	for b.Loop() {
		out.URL.RawQuery = r.URL.RawQuery
		e.Rewrite(out, found)
	}
}

func BenchmarkEngineIOBind(b *testing.B) {
	e := &affinity.EngineIO{Secrets: testSecrets}
	opening := strings.Replace(openings[0].body, "%s", "", 1)
	for _, bm := range []struct {
		name string
		r    *http.Request
	}{{"opening", opens("4")}, {"poll", polls("4", taggedSID)}} {
		b.Run(bm.name, func(b *testing.B) {
			found := find(b, e, bm.r)
			b.ReportAllocs()
			for b.Loop() {
				res := &http.Response{StatusCode: 200, Request: bm.r, Body: io.NopCloser(strings.NewReader(opening)), ContentLength: int64(len(opening))}
				if _, err := e.Bind(to("b1", res, found)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
