// The entry point: builds what the command line tool needs from outside, runs one command, exits.
import Glibc
import KedgeCommand
import KedgeCore

@main
struct Main {
    static func main() {
        let surroundings = Surroundings.real
        do {
            try Interruption.catchSignals()
        } catch {
            for line in OutputRenderer.errorLines(error) { surroundings.writeErrorLine(line) }
            exit(ExitStatus.other(error.code))
        }
        let words = Array(CommandLine.arguments.dropFirst())
        switch CommandLineTool(surroundings: surroundings).run(words) {
        case .exit(let status): exit(status)
        case .die(let signal): Interruption.endProcess(by: signal)
        }
    }
}
