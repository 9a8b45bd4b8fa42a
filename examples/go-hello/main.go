// A greeting from Go: an ordinary net/http server for GOOS=wasip1.
package main

import (
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"syscall"
)

func main() {
	listener, err := listen()
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "ok") })
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Hello from Go at %s\n", r.URL.Path)
	})
	log.Print("listening")
	log.Fatal(http.Serve(listener, nil))
}

const firstSocket = 3

// WASI preview 1 makes no sockets: the container is given one that listens for each containerPort, from number 3 on.
func listen() (net.Listener, error) {
	if os.Getenv("LISTEN_FDS") == "" {
		return nil, errors.New("no socket was given: name a containerPort")
	}
	// All goroutines share one thread: none may wait in the host.
	if err := syscall.SetNonblock(firstSocket, true); err != nil {
		return nil, fmt.Errorf("socket %d: %w", firstSocket, err)
	}
	return net.FileListener(os.NewFile(firstSocket, "listener"))
}
