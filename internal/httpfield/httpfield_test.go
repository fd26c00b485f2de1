package httpfield_test

import (
	"testing"

	"github.com/limpet-go/limpet/internal/httpfield"
)

func TestIsToken(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		"Content-Type":     true,
		"x!#$%&'*+.^_`|~9": true,
		"":                 false,
		"a b":              false,
		"a:":               false,
		"a\r\n":            false,
		"a\x00":            false,
		"(a)":              false,
		"é":                false,
	} {
		if got := httpfield.IsToken(s); got != want {
			t.Errorf("IsToken(%q) is %v", s, got)
		}
	}
}

func TestIsValue(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		"":         true,
		"a b\tc":   true,
		"é\xff":    true,
		"a\nb":     false,
		"a\rb":     false,
		"a\x00":    false,
		"a\x7f":    false,
		"\x1b[31m": false,
	} {
		if got := httpfield.IsValue(s); got != want {
			t.Errorf("IsValue(%q) is %v", s, got)
		}
		if got := httpfield.AreValues([]string{"a", s}); got != want {
			t.Errorf("AreValues of a and %q is %v", s, got)
		}
	}
	if !httpfield.AreValues(nil) {
		t.Error("AreValues of none is false")
	}
}

func TestHasToken(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		lines []string
		want  bool
	}{
		{"none", nil, false},
		{"alone", []string{"close"}, true},
		{"in other letters", []string{"Close"}, true},
		{"with space around", []string{"a,\tclose ,b"}, true},
		{"in a second line", []string{"a", "b, close"}, true},
		{"part of a word", []string{"closed, x-close"}, false},
		{"a member of two words", []string{"close it"}, false},
		{"between empty members", []string{",,close,,"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := httpfield.HasToken(tt.lines, "close"); got != tt.want {
				t.Errorf("HasToken(%q) is %v", tt.lines, got)
			}
		})
	}
}
