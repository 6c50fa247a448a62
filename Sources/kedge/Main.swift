// The entry point: builds what the command line tool needs from outside, runs one command, exits.
import Glibc
import KedgeCommand
import KedgeCore

@main
struct Main {
    // Of no actor: that would bring the runtime of tasks and libdispatch into every start (docs/decisions/0001).
    nonisolated static func main() {
        StandardStream.occupyMissing()
        FileSystem.keepRightsOfOwner()
        let forced = ForcedEnd(words: Array(CommandLine.arguments.dropFirst()))
        let surroundings = Surroundings.real
        do {
            try Interruption.catchSignals()
            Interruption.endByForce(afterMilliseconds: forced.milliseconds, status: forced.status)
            if let status = forced.crashStatus { Interruption.exitOnCrash(status: status) }
        } catch {
            for line in OutputRenderer.errorLines(error) { surroundings.writeErrorLine(line) }
            exit(forced.failureStatus ?? ExitStatus.other(error.code))
        }
        // CommandLine.arguments would repair what is not UTF-8, and so name other files.
        let words = UnsafeBufferPointer(start: CommandLine.unsafeArgv, count: Int(CommandLine.argc)).dropFirst()
        let bytes = words.compactMap { word in word.map { Array(UnsafeRawBufferPointer(start: $0, count: strlen($0))) }
        }
        switch CommandLineTool(surroundings: surroundings).run(bytes: bytes) {
        case .exit(let status): exit(status)
        case .die(let signal): Interruption.endProcess(by: signal)
        }
    }
}
