package metrics_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/middleware/metrics"
)

// What Limit and Origin refuse, which the gateway never sees, is counted too.
func TestRefused(t *testing.T) {
	t.Parallel()
	quiet := slog.New(slog.DiscardHandler)
	limit, origin := &limpet.Limit{Rate: 1, Burst: 1, Logger: quiet}, &limpet.Origin{Logger: quiet}
	r := newRig(t, 1, limpet.Options{}, &metrics.Options{Limit: limit, Origin: origin})
	h := limit.Handler(http.NotFoundHandler())
	for range 3 {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	}
	evil := httptest.NewRequest("GET", "/", nil)
	evil.Header.Set("Upgrade", "websocket")
	evil.Header.Set("Origin", "https://evil.test")
	origin.Handler(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), evil)
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch f.GetName() {
			case "limpet_refused_total":
				got[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			case "limpet_limit_clients":
				got["clients"] = m.GetGauge().GetValue()
			}
		}
	}
	if got["rate"] != 2 || got["origin"] != 1 || got["clients"] != 1 || got["tunnels"] != 0 || len(got) != 8 {
		t.Errorf("%v", got)
	}
}
