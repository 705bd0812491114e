// The real dtm server, as rushline's import finds it: the server's own entry, without the page for people and without
// the drivers for service registries, which take minutes to build. It is configured by dtm's own environment variables.
package main

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/dtm-labs/dtm/dtmsvr/entry"
)

func main() {
	version := "v1.19.0"
	if app, _ := entry.Main(&version); app != nil {
		end := make(chan os.Signal, 1)
		signal.Notify(end, syscall.SIGINT, syscall.SIGTERM)
		<-end
	}
}
