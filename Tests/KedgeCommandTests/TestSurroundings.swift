// Surroundings that the tests of this module give to the tool: files, variables and clocks are values.
import KedgeCore
import KedgeRepository
import Synchronization

@testable import KedgeCommand

/// One run of the tool, and what it wrote.
struct ToolRun {
    let ending: Ending
    let output: String
    let errors: String

    /// Runs `words`, or `bytes` where these are given, in surroundings that have just these files and variables.
    init(
        _ words: [String] = [], bytes: [[UInt8]]? = nil, commands: [Command] = CommandTable.all,
        files: [String: String] = [:],
        environment: [EnvironmentVariable] = [], existing: [String] = [], interruption: Interruption = Interruption(),
        outputFails: Bool = false, readFile: FileReader? = nil, runShell: ShellRunner? = nil,
        keyMemory: (any KeyMemory)? = nil, changing: (inout Surroundings) -> Void = { _ in }
    ) {
        let output = Mutex("")
        let errors = Mutex("")
        var surroundings = Surroundings(
            environment: environment, host: testHost, readFile: readFile ?? reader(files),
            runShell: runShell ?? Surroundings.real.runShell,
            fileExists: { existing.contains($0) },
            listDirectory: { directory in
                existing.contains(directory) ? existing.compactMap { name(of: $0, in: directory) } : nil
            },
            writeOutput: { (bytes: [UInt8]) throws(KedgeError) in
                if outputFails { throw KedgeError(.inputOutput, "could not write to standard output") }
                output.withLock { $0 += String(decoding: bytes, as: UTF8.self) }
            },
            writeErrorLine: { line in errors.withLock { $0 += line + "\n" } },
            time: FixedTime(), random: SystemRandomSource(), interruption: interruption)
        if let keyMemory { surroundings.keyMemory = { _, _ in keyMemory } }
        changing(&surroundings)
        let tool = CommandLineTool(commands: commands, surroundings: surroundings)
        ending = bytes.map { tool.run(bytes: $0) } ?? tool.run(words)
        self.output = output.withLock { $0 }
        self.errors = errors.withLock { $0 }
    }
}

/// The name that a path has in a directory, nil for a path elsewhere.
private func name(of path: String, in directory: String) -> String? {
    path.hasPrefix(directory + "/") ? String(path.dropFirst(directory.utf8.count + 1)) : nil
}

/// Four processors, user 1000.
let testHost = HostFacts(processors: 4, userID: 1000)

/// Reads from the dictionary, with mode 0600.
func reader(_ files: [String: String]) -> FileReader {
    { (path: String, what: String, limit: Int) throws(KedgeError) -> SmallFile in
        guard let text = files[path] else {
            throw KedgeError(
                .configuration, "could not open \(what) \"\(path)\"", detail: "No such file or directory.",
                hint: "Create it, or correct the path.")
        }
        return SmallFile(bytes: Array(text.utf8), mode: 0o600)
    }
}

/// A clock that stands still and sleeps not at all.
struct FixedTime: TimeSource {
    func now() -> Timestamp { Timestamp(secondsSince1970: 1_795_177_800) }
    func monotonicNanoseconds() -> UInt64 { 0 }
    func sleep(nanoseconds: UInt64) {}
}

/// All that a thrown error says, or what was returned instead.
func failure<Value>(_ body: () throws(KedgeError) -> Value) -> String {
    do {
        return "no error but \(try body())"
    } catch {
        return OutputRenderer.errorLines(error).joined(separator: "\n")
    }
}
