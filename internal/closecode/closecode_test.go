package closecode_test

import (
	"strings"
	"testing"

	"github.com/limpet-go/limpet/internal/closecode"
)

func TestSendable(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		from, to int
		want     bool
	}{
		{-1, 999, false}, {1000, 1003, true}, {1004, 1006, false}, {1007, 1014, true},
		{1015, 2999, false}, {3000, 4999, true}, {5000, 70_000, false},
	} {
		for code := tt.from; code <= tt.to; code++ {
			if closecode.Sendable(code) != tt.want {
				t.Errorf("Sendable(%d) isn't %v", code, tt.want)
			}
		}
	}
}

func TestReason(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"too slow", "too slow"},
		{strings.Repeat("o", 123), strings.Repeat("o", 123)},
		{strings.Repeat("o", 124), strings.Repeat("o", 123)},
		{strings.Repeat("ö", 62), strings.Repeat("ö", 61)},
		{strings.Repeat("€", 42), strings.Repeat("€", 41)},
		{strings.Repeat("\x80", 200), ""},
	} {
		if got := closecode.Reason(tt.in); got != tt.want {
			t.Errorf("%q became %q, want %q", tt.in, got, tt.want)
		}
	}
}
