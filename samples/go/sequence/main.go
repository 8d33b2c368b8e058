// Sequence runs three activities in a row, each after the one before.
//
// In the folder above this one, with a scheduler at localhost:8080 (or the address in MAINSPRING_ADDRESS):
//
//	go run ./sequence
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"os"

	"github.com/microsoft/durabletask-go/api"
	"github.com/microsoft/durabletask-go/backend"
	"github.com/microsoft/durabletask-go/client"
	"github.com/microsoft/durabletask-go/task"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func Greetings(ctx *task.OrchestrationContext) (any, error) {
	var cities, greetings []string
	if err := ctx.GetInput(&cities); err != nil {
		return nil, err
	}
	for _, city := range cities {
		var greeting string
		if err := ctx.CallActivity(SayHello, task.WithActivityInput(city)).Await(&greeting); err != nil {
			return nil, err
		}
		greetings = append(greetings, greeting)
	}
	return greetings, nil
}

func SayHello(ctx task.ActivityContext) (any, error) {
	var city string
	if err := ctx.GetInput(&city); err != nil {
		return nil, err
	}
	return fmt.Sprintf("Hello %s!", city), nil
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
	if err := registry.AddOrchestrator(Greetings); err != nil {
		return err
	}
	if err := registry.AddActivity(SayHello); err != nil {
		return err
	}
	if err := taskHub.StartWorkItemListener(ctx, registry); err != nil {
		return err
	}

	id, err := taskHub.ScheduleNewOrchestration(ctx, "Greetings", api.WithInput([]string{"Tokyo", "Lisbon", "Quito"}))
	if err != nil {
		return err
	}
	state, err := taskHub.WaitForOrchestrationCompletion(ctx, id)
	if err != nil {
		return err
	}
	fmt.Println(state.SerializedOutput)
	return nil
}
