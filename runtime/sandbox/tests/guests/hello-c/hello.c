// A C program for the sandbox's tests: its arguments, a variable, a file, its input and an exit code.
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    const char *greeting = getenv("GREETING");
    printf("%d arguments, %s\n", argc, greeting ? greeting : "no greeting");
    if (argc > 1) {
        FILE *file = fopen(argv[1], "r");
        char line[64] = "";
        if (file == NULL || fgets(line, sizeof line, file) == NULL) {
            perror(argv[1]);
            return 2;
        }
        printf("%s: %s\n", argv[1], line);
    }
    for (int c; (c = getchar()) != EOF;) putchar(c);
    return 7;
}
