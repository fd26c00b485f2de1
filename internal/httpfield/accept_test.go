package httpfield_test

import (
	"testing"

	"github.com/limpet-go/limpet/internal/httpfield"
)

func TestPrefer(t *testing.T) {
	t.Parallel()
	const text, json, html = "text/plain", "application/json", "text/html"
	for _, tt := range []struct {
		name   string
		accept []string
		want   string
	}{
		{"no field", nil, text},
		{"an empty field", []string{""}, ""},
		{"curl", []string{"*/*"}, text},
		{"a star alone", []string{"*"}, text},
		{"Firefox", []string{"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}, html},
		{"Chrome", []string{"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"}, html},
		{"axios", []string{"application/json, text/plain, */*"}, json},
		{"Java's old client", []string{"text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"}, html},
		{"JSON", []string{"application/json"}, json},
		{"in other letters", []string{"Application/JSON"}, json},
		{"with a parameter", []string{"application/json;version=1"}, json},
		{"by its kind", []string{"application/*"}, json},
		{"a kind of two", []string{"text/*"}, text},
		{"a kind that begins alike", []string{"tex/*, textual/*"}, ""},
		{"the better quality", []string{"text/html;q=0.4, application/json;q=0.5"}, json},
		{"a thousandth better", []string{"text/html;q=0.499, application/json;q=0.5"}, json},
		{"the closer range counts", []string{"text/*;q=0.9, text/plain;q=0.1, text/html;q=0.2"}, html},
		{"the closer range counts, although it is worse", []string{"*/*;q=0.5, text/plain;q=0, application/json;q=0.4"}, html},
		{"not at all", []string{"text/plain;q=0, application/json;q=0.0, text/html;q=0.000"}, ""},
		{"everything but text", []string{"*/*, text/plain;q=0, text/html;q=0"}, json},
		{"in two lines", []string{"image/png", "text/html"}, html},
		{"the first of equals", []string{"text/html;q=0.5, application/json;q=0.5"}, html},
		{"twice, the better one", []string{"text/html;q=0.1, application/json;q=0.5, text/html;q=0.9"}, html},
		{"nothing that is offered", []string{"image/png, video/*"}, ""},
		{"a comma in quotes", []string{`image/png;a="x, text/html", application/json`}, json},
		{"a quote in quotes", []string{`image/png;a="x\", text/html", application/json`}, json},
		{"a semicolon in quotes", []string{`text/html;a=";q=0", image/png`}, html},
		{"quotes that don't end", []string{`image/png;a="x, text/html`}, ""},
		{"spaces", []string{"\t text/html ; q = 0.5 ,application/json; Q=0.1"}, html},
		{"a quality above 1", []string{"text/html;q=1.001, application/json"}, json},
		{"a quality of 2", []string{"text/html;q=2, application/json;q=0.1"}, json},
		{"no number", []string{"text/html;q=high, application/json;q=0.1"}, json},
		{"a sign", []string{"text/html;q=0.+1, application/json;q=0.1"}, json},
		{"an empty quality", []string{"text/html;q=, application/json;q=0.1"}, json},
		{"too many digits", []string{"text/html;q=0.9999, application/json;q=0.1"}, json},
		{"all of it", []string{"text/html;q=1.000, application/json;q=0.999"}, html},
		{"commas alone", []string{",,,"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := httpfield.Prefer(tt.accept, text, json, html); got != tt.want {
				t.Errorf("Prefer(%q) is %q, want %q", tt.accept, got, tt.want)
			}
		})
	}
}
