// `kedge pin`, `kedge unpin` and `kedge unexpire`.
import KedgeCatalog
import KedgeCore
import KedgeRepository

/// The command line of `pin`.
enum PinCommand {
    static let command = Command(
        CommandSpecification(
            name: "pin", summary: "exempt a backup from retention",
            description: [
                "Keeps expire from removing this backup until it is unpinned. All WAL after it stays "
                    + "too. A pending removal ends. Exit status 1 and \"its removal has begun\": the pin is there, but "
                    + "an expire at work may not have seen it."
            ], arguments: [RetentionLabels.argument])
    ) { (context) throws(KedgeError) in
        try RetentionLabels.run(context, word: "pinned") { (pinning, label) throws(KedgeError) in
            switch try pinning.pin(label) {
            case .nothingToDo: "is pinned already"
            case .done(endedRemoval: true): "is pinned, and its removal was taken back"
            case .done: "is pinned"
            case .removalHasBegun: nil
            }
        }
    }
}

/// The command line of `unpin`.
enum UnpinCommand {
    static let command = Command(
        CommandSpecification(
            name: "unpin", summary: "let retention decide about a pinned backup",
            description: ["The next expire decides whether it is kept."], arguments: [RetentionLabels.argument])
    ) { (context) throws(KedgeError) in
        try RetentionLabels.run(context, word: "unpinned") { (pinning, label) throws(KedgeError) in
            try pinning.unpin(label)
            return "is no longer pinned"
        }
    }
}

/// The command line of `unexpire`.
enum UnexpireCommand {
    static let command = Command(
        CommandSpecification(
            name: "unexpire", summary: "take the removal of a backup back",
            description: [
                "Takes the mark of a condemned backup away while its removal is pending. The next expire condemns it "
                    + "again unless the keep keys or a pin keep it by then."
            ], arguments: [RetentionLabels.argument])
    ) { (context) throws(KedgeError) in
        try RetentionLabels.run(context, word: "taken back") { (pinning, label) throws(KedgeError) in
            switch try pinning.unexpire(label) {
            case .nothingToDo: "was not condemned"
            case .done: "is no longer condemned; \"kedge pin \(label)\" keeps the next expire from it"
            case .removalHasBegun: nil
            }
        }
    }
}

/// What the three have in common.
private enum RetentionLabels {
    static let argument = ArgumentSpecification("LABEL", "The backup, as info lists it.")

    /// Runs `body` on each selected repository that has the backup; nil where it was done and it is not certain that
    /// the backup stays: then the exit status is 1.
    static func run(
        _ context: CommandContext, word: String,
        _ body: (Pinning, Label) throws(KedgeError) -> String?
    ) throws(KedgeError) -> CommandResult {
        let label = try RetentionLabel.parse(context.arguments.positionals[0])
        let configuration = try context.loadConfiguration()
        let cluster = try configuration.cluster()
        var done: [(repository: String, text: String)] = []
        var missing: KedgeError?
        var isCertain = true
        for repository in try configuration.selectedRepositories(of: cluster) {
            let opened = try context.source(of: repository).openCluster(
                cluster.name, for: .write, random: context.surroundings.random)
            let pinning = Pinning(
                opened, hostName: context.surroundings.host.name, time: context.surroundings.time)
            do throws(KedgeError) {
                let text = try body(pinning, label)
                isCertain = isCertain && text != nil
                done.append((repository.name, text ?? doubt(word, label)))
            } catch  where error.code == .notFound {
                missing = missing ?? error
            }
        }
        if done.isEmpty, let missing { throw missing }
        return CommandResult(
            lines: done.map { "backup \(label) in repository \"\($0.repository)\" \($0.text)" },
            json: [
                "label": .string(label.text), "action": .string(word),
                "repositories": .array(
                    done.map { ["repository": .string($0.repository), "result": .string($0.text)] }),
            ], status: isCertain ? 0 : 1)
    }

    /// What follows the name of a backup whose removal has begun.
    private static func doubt(_ word: String, _ label: Label) -> String {
        "is \(word), but its removal has begun: an expire that is at work now may still remove it, a later one sees "
            + "this.  When none is at work, \"kedge info\" says whether it is there"
            + (word == "pinned" ? "" : ", and \"kedge pin \(label)\" keeps the next expire from it")
    }
}
