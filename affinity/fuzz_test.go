package affinity_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/affinity"
)

// sealed is a value of version 1, sealed with testSecrets for the name "limpet" and
// the home b1. It must be understood for as long as there are such cookies.
const sealed = "ARe5wJoeASM6elnYUdElqhY_sCpmhNhk6cStuQvcX0OaW3FHC4qMRJF9-L_eU5LcU8FM9fqyjWk"

// Find accepts no other value than the one that was sealed.
func FuzzCookieValue(f *testing.F) {
	f.Add(sealed)
	f.Add(`"` + sealed + `"; a=1`)
	f.Add("; limpet=" + sealed)
	f.Add(sealed + "=")
	f.Add(sealed[:len(sealed)-1])
	f.Add(sealed[:len(sealed)-1] + "l") // differs in a bit that base64 leaves unused
	f.Add("")
	f.Add("AQ")
	f.Add(strings.Repeat("A", 2000))
	f.Add(strings.Repeat("; limpet=", 9) + sealed)
	c := &affinity.Cookie{Secrets: testSecrets}
	f.Fuzz(func(t *testing.T, v string) {
		if strings.ContainsAny(v, "\r\n") {
			t.Skip("no field of a header has line breaks")
		}
		found := find(t, c, get("/", "a=1; limpet="+v))
		want := affinity.Pin{Status: affinity.Forged}
		tries := 0
		for _, p := range parts("limpet=" + v) {
			name, value, ok := strings.Cut(p, "=")
			if !ok || trim(name) != "limpet" {
				continue
			}
			if value = trim(value); tries < 8 && (value == sealed || value == `"`+sealed+`"`) {
				want = affinity.Pin{Backend: "b1", Key: "XP5J26YCVLXVGQMQ", Status: affinity.Hit}
			}
			tries++
		}
		if found != want {
			t.Errorf("Find(%q) = %+v, want %+v", v, found, want)
		}
	})
}

// Rewrite removes our cookies from the Cookie fields and changes nothing else.
func FuzzCookieRewrite(f *testing.F) {
	f.Add("limpet=x; a=1", "b=2;limpet=y")
	f.Add(` ;; a="x; limpet=1" ;limpet = z;`, "__Host-limpet=1")
	f.Add("xlimpet=1;limpet;=limpet=;LIMPET=2", "limpet")
	f.Add("limpet=a;\tlimpet=b; limpet=c", "; ;")
	c := &affinity.Cookie{Secrets: testSecrets}
	f.Fuzz(func(t *testing.T, line1, line2 string) {
		in := []string{line1, line2}
		out := get("/", in...)
		c.Rewrite(out, affinity.Pin{})
		got := out.Header["Cookie"]
		var want []string
		for _, line := range in {
			kept := parts(line)
			// The same in a simpler way: split, filter, and the first that remains starts the line.
			kept = slices.DeleteFunc(kept, ours)
			if first := parts(line)[0]; ours(first) && len(kept) > 0 {
				kept[0] = strings.TrimLeft(kept[0], " \t")
			}
			rest := strings.Join(kept, ";")
			if rest != "" || line == "" {
				want = append(want, rest)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("Rewrite(%q)\n got %q\nwant %q", in, got, want)
		}
	})
}

func ours(part string) bool {
	name, _, ok := strings.Cut(part, "=")
	return ok && (trim(name) == "limpet" || trim(name) == "__Host-limpet")
}

func parts(line string) []string { return strings.Split(line, ";") }

func trim(s string) string { return strings.Trim(s, " \t") }
