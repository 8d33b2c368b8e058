// Fan_out_fan_in runs many activities at once and makes one result of all of them.
//
// In the folder above this one, with a scheduler at localhost:8080 (or the address in MAINSPRING_ADDRESS):
//
//	go run ./fan_out_fan_in
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/microsoft/durabletask-go/api"
	"github.com/microsoft/durabletask-go/backend"
	"github.com/microsoft/durabletask-go/client"
	"github.com/microsoft/durabletask-go/task"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func WordCount(ctx *task.OrchestrationContext) (any, error) {
	var pages []string
	if err := ctx.GetInput(&pages); err != nil {
		return nil, err
	}
	var counts []task.Task
	for _, page := range pages {
		counts = append(counts, ctx.CallActivity(CountWords, task.WithActivityInput(page)))
	}
	sum := 0
	for _, count := range counts {
		var words int
		if err := count.Await(&words); err != nil {
			return nil, err
		}
		sum += words
	}
	return sum, nil
}

func CountWords(ctx task.ActivityContext) (any, error) {
	var page string
	if err := ctx.GetInput(&page); err != nil {
		return nil, err
	}
	return len(strings.Fields(page)), nil
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	address := cmp.Or(os.Getenv("MAINSPRING_ADDRESS"), "localhost:8080")
	connection, err := grpc.Dial(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	taskHub := client.NewTaskHubGrpcClient(connection, backend.DefaultLogger())

	registry := task.NewTaskRegistry()
	if err := registry.AddOrchestrator(WordCount); err != nil {
		return err
	}
	if err := registry.AddActivity(CountWords); err != nil {
		return err
	}
	if err := taskHub.StartWorkItemListener(ctx, registry); err != nil {
		return err
	}

	pages := []string{"to be or not", "to be", "that is the question"}
	id, err := taskHub.ScheduleNewOrchestration(ctx, "WordCount", api.WithInput(pages))
	if err != nil {
		return err
	}
	state, err := taskHub.WaitForOrchestrationCompletion(ctx, id)
	if err != nil {
		return err
	}
	fmt.Printf("%s words on %d pages\n", state.SerializedOutput, len(pages))
	return nil
}
