using namespace System.Management.Automation.Language

# The shape of a script: what stands at its head, how it declares what it does, what must not stand in it.

function Test-Shape {
    Test-Head
    Test-Help
    Test-Binding
    Test-Habit
    Test-Secret
    Test-Token
    Test-Use
}

$script:Verbs = @{}
foreach ($one in (Get-Verb)) { $script:Verbs[$one.Verb] = $true }

function Test-Head {
    $ast = $script:Script.Ast
    if (($script:Script.Text -split "`r?`n")[0] -cne '#Requires -Version 5.1') { Add-Finding -Rule 'Requires' -At 1 -Message "the first line is not '#Requires -Version 5.1'" }
    elseif ($null -eq $ast.ScriptRequirements -or [string]$ast.ScriptRequirements.RequiredPSVersion -ne '5.1') { Add-Finding -Rule 'Requires' -At 1 -Message '#Requires -Version 5.1 is not in force' }
    $verb, $noun = [System.IO.Path]::GetFileNameWithoutExtension($script:Script.Name) -split '-', 2
    if (-not $script:Verbs.ContainsKey($verb) -or -not $noun) { Add-Finding -Rule 'Verb' -At 1 -Message "'$($script:Script.Name)' is not Verb-Noun with an approved verb" }
    foreach ($function in (Get-Node 'FunctionDefinitionAst')) {
        $verb, $noun = $function.Name -split '-', 2
        if (-not $noun -or -not $script:Verbs.ContainsKey($verb)) { Add-Finding -Rule 'Verb' -At $function -Message "the function $($function.Name) is not Verb-Noun with an approved verb" }
        elseif ($noun -match '[^s]s$' -and $noun -notmatch '(Status|Address|Tls)$') { Add-Finding -Rule 'Verb' -At $function -Message "the noun of $($function.Name) is a plural" }
    }
    $text = $ast.Extent.Text
    if ($text -notmatch '(?m)^Set-StrictMode -Version 2\.0\r?$') { Add-Finding -Rule 'Strict' -At 1 -Message 'no line Set-StrictMode -Version 2.0' }
    if ($text -notmatch '(?m)^\$ErrorActionPreference = ''Stop''\r?$') { Add-Finding -Rule 'Strict' -At 1 -Message "no line `$ErrorActionPreference = 'Stop'" }
}

function Test-Help {
    $help = $script:Script.Ast.GetHelpContent()
    if ($null -eq $help) { Add-Finding -Rule 'Help' -At 1 -Message 'no comment-based help'; return }
    foreach ($part in 'Synopsis', 'Description', 'Notes') { if ([string]::IsNullOrWhiteSpace($help.$part)) { Add-Finding -Rule 'Help' -At 1 -Message ".$($part.ToUpper()) is missing" } }
    if (@($help.Outputs | Where-Object { $_ }).Count -eq 0) { Add-Finding -Rule 'Help' -At 1 -Message '.OUTPUTS is missing' }
    $declared = @(Get-OwnParameter $script:Script.Ast | ForEach-Object { $_.Name.VariablePath.UserPath })
    foreach ($name in $declared) { if (-not $help.Parameters.ContainsKey($name.ToUpper()) -or [string]::IsNullOrWhiteSpace($help.Parameters[$name.ToUpper()])) { Add-Finding -Rule 'Help' -At 1 -Message ".PARAMETER $name is missing" } }
    foreach ($name in $help.Parameters.Keys) { if ($declared -notcontains $name) { Add-Finding -Rule 'Help' -At 1 -Message ".PARAMETER $name`: the script has no such parameter" } }
    $examples = @($help.Examples | Where-Object { $_ })
    if ($examples.Count -lt 2) { Add-Finding -Rule 'Help' -At 1 -Message 'fewer than two .EXAMPLE' }
    if ((Test-Preview) -and ($examples -join "`n") -notmatch '-WhatIf') { Add-Finding -Rule 'Help' -At 1 -Message 'no .EXAMPLE with -WhatIf' }
    if (($examples -join "`n") -notmatch '-AppId') { Add-Finding -Rule 'Help' -At 1 -Message 'no .EXAMPLE of an app-only run' }
    foreach ($example in $examples) {
        foreach ($match in [regex]::Matches($example, '(?<=\s)-([A-Z]\w+)')) {
            $name = $match.Groups[1].Value
            if ($declared -notcontains $name -and 'WhatIf', 'Confirm', 'Verbose' -notcontains $name -and $example -match 'Gatepost') { Add-Finding -Rule 'Help' -At 1 -Message "an .EXAMPLE uses -$name, which the script does not have" }
        }
    }
}

function Get-Binding { foreach ($attribute in $script:Script.Ast.ParamBlock.Attributes) { if ($attribute.TypeName.Name -eq 'CmdletBinding') { $attribute } } }
function Test-Preview { $null -ne $script:Script.Ast.ParamBlock -and $null -ne (Get-Binding) -and (Get-Binding).Extent.Text -match 'SupportsShouldProcess = \$true' }

function Test-Binding {
    $block = $script:Script.Ast.ParamBlock
    if ($null -eq $block -or $null -eq (Get-Binding)) { Add-Finding -Rule 'Binding' -At 1 -Message 'no [CmdletBinding()] with param()'; return }
    $binding = Get-Binding
    $changes = $false
    foreach ($name in $script:Script.Calls.Keys) { if ($script:Table.cmdlets.Contains($name) -and $script:Table.cmdlets[$name]['changes']) { $changes = $true } }
    $asks = $script:Script.Ast.Extent.Text -match '\.ShouldProcess\('
    if ($changes -and -not (Test-Preview)) { Add-Finding -Rule 'Binding' -At $binding -Message 'the script changes the tenant: SupportsShouldProcess = $true' }
    if ((Test-Preview) -and -not $asks) { Add-Finding -Rule 'Binding' -At $binding -Message 'SupportsShouldProcess, but ShouldProcess is never asked' }
    if (-not (Test-Preview) -and $asks) { Add-Finding -Rule 'Binding' -At $binding -Message 'ShouldProcess is asked without SupportsShouldProcess = $true' }
    if (-not (Test-Preview) -and $binding.Extent.Text -match 'ConfirmImpact') { Add-Finding -Rule 'Binding' -At $binding -Message 'ConfirmImpact without SupportsShouldProcess' }
    if (Test-Preview) {
        $impact = 'Medium'
        if ($script:Script.Name -match '^Remove-') { $impact = 'High' }
        if ($binding.Extent.Text -notmatch "ConfirmImpact = '$impact'") { Add-Finding -Rule 'Binding' -At $binding -Message "ConfirmImpact is '$impact' here" }
    }
    foreach ($parameter in (Get-OwnParameter $script:Script.Ast)) {
        $name = $parameter.Name.VariablePath.UserPath
        if ($parameter.StaticType -eq [switch] -and $null -ne $parameter.DefaultValue) { Add-Finding -Rule 'Binding' -At $parameter -Message "the switch -$name has a default value" }
        if ($parameter.StaticType -eq [string] -and $name -match 'Password|SecretValue|Credential|HeaderValue') { Add-Finding -Rule 'Binding' -At $parameter -Message "-$name takes a secret as text" }
        if ($parameter.StaticType -eq [object]) { Add-Finding -Rule 'Binding' -At $parameter -Message "-$name has no type" }
    }
}

$script:Automatic = 'args|input|home|host|matches|error|pid|pwd|profile|this|true|false|null|event|sender|stacktrace|foreach|switch|lastexitcode|myinvocation|psitem|_|psscriptroot|pscommandpath|psversiontable|executioncontext|shellid'

function Test-Habit {
    foreach ($node in (Get-Node 'CatchClauseAst')) { if ($node.Body.Statements.Count -eq 0) { Add-Finding -Rule 'EmptyCatch' -At $node -Message 'a catch that does nothing' } }
    foreach ($node in (Get-Node 'BinaryExpressionAst')) {
        if ($node.Operator -match '^[CI]?(eq|ne)$' -and $node.Right.Extent.Text -eq '$null') { Add-Finding -Rule 'Null' -At $node -Message '$null stands on the left of a comparison' }
    }
    foreach ($node in (Get-Node 'AssignmentStatementAst')) {
        if ($node.Left -is [VariableExpressionAst] -and $node.Left.VariablePath.UserPath -match "^($script:Automatic)$") { Add-Finding -Rule 'Automatic' -At $node -Message "`$$($node.Left.VariablePath.UserPath) is an automatic variable" }
    }
    foreach ($node in (Get-Node 'ForEachStatementAst')) {
        if ($node.Variable.VariablePath.UserPath -match "^($script:Automatic)$") { Add-Finding -Rule 'Automatic' -At $node -Message "`$$($node.Variable.VariablePath.UserPath) is an automatic variable" }
    }
    foreach ($node in (Get-Node 'CommandAst')) {
        $first = $node.CommandElements[0]
        if ($node.InvocationOperator -eq 'Dot') { Add-Finding -Rule 'Alone' -At $node -Message 'another file is read in: a script runs alone' }
        elseif ($first.Extent.Text -match '\.ps1|PSScriptRoot') { Add-Finding -Rule 'Alone' -At $node -Message 'another script is called: a script runs alone' }
        if ($node.GetCommandName() -eq 'ConvertTo-SecureString') { Add-Finding -Rule 'Banned' -At $node -Message 'ConvertTo-SecureString' }
    }
}

# No text that could be a secret, and nothing of a tenant.
function Test-Secret {
    $parameters = @($script:Table.cmdlets.Values | ForEach-Object { $_.parameters.Keys })
    foreach ($kind in 'StringConstantExpressionAst', 'ExpandableStringExpressionAst') {
        foreach ($node in (Get-Node $kind)) {
            $text = [string]$node.Value
            if ($node.Parent -is [CommandAst] -and $node.StringConstantType -eq 'BareWord') { continue }
            if ($text -match '^[A-Za-z0-9+/_=-]{20,}$' -and $text -match '[0-9]' -and $text -match '[A-Za-z]' -and $text -notmatch '^X-' -and $parameters -cnotcontains $text) { Add-Finding -Rule 'Secret' -At $node -Message 'a text that could be a secret' }
            if ($text -match '\b[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b' -and $text -notmatch '00000000-0000-0000-0000-000000000000') { Add-Finding -Rule 'Secret' -At $node -Message 'an identifier of a tenant or an application' }
            if ($text -match '\w\.onmicrosoft\.com') { Add-Finding -Rule 'Secret' -At $node -Message 'the name of a tenant' }
        }
    }
    foreach ($node in (Get-Node 'AssignmentStatementAst')) {
        if ($node.Left.Extent.Text -match '(Secret|Password|Token|HeaderValue|Word)$' -and $node.Right.Extent.Text -match "^('[^'@]+'|`"[^`"`$]+`")$") { Add-Finding -Rule 'Secret' -At $node -Message "a literal value for $($node.Left.Extent.Text)" }
    }
}

# The tokens that 'gatepost connector render' fills in: kind of each.
$script:TokenKind = [ordered]@{
    TenantId = 'string'; SmartHosts = 'list'; TlsDomain = 'string'; TlsSenderCertificateName = 'string'; AcceptedDomains = 'list'; CloudServicesMailEnabled = 'string'
    SecretHeaderName = 'string'; LoopHeaderName = 'string'; PilotGroup = 'string'; ExchangeEnvironmentName = 'string'
}

function Test-Token {
    foreach ($node in (Get-Node 'StringConstantExpressionAst')) {
        if ($node.Value -notmatch '@\w+@' -or $node.Value -match '[\\^$]') { continue }
        $name = $node.Value.Trim('@')
        if ($node.Extent.Text -cnotmatch "^'@[A-Za-z]+@'$" -or @($script:TokenKind.Keys) -cnotcontains $name) { Add-Finding -Rule 'Token' -At $node -Message "$($node.Extent.Text) is not a token that render knows"; continue }
        $up = $node.Parent
        while ($null -ne $up -and $up -isnot [ParameterAst]) { $up = $up.Parent }
        if ($null -eq $up -or $up.Parent.Parent -ne $script:Script.Ast) { Add-Finding -Rule 'Token' -At $node -Message "'@$name@' stands outside the default value of a parameter"; continue }
        if ($up.Name.VariablePath.UserPath -cne $name) { Add-Finding -Rule 'Token' -At $node -Message "'@$name@' is the default value of -$($up.Name.VariablePath.UserPath)" }
        $wanted = "'@$name@'"
        $type = '[string]'
        if ($script:TokenKind[$name] -eq 'list') { $wanted = "@('@$name@')"; $type = '[string[]]' }
        if ($up.DefaultValue.Extent.Text -cne $wanted -or $up.Extent.Text -notmatch [regex]::Escape($type + '$' + $name)) { Add-Finding -Rule 'Token' -At $node -Message "-$name is declared $type`$$name = $wanted" }
    }
}

# Parameters that are never read, variables that are only written.
function Test-Use {
    $reads = @{}
    $writes = @{}
    foreach ($node in (Get-Node 'VariableExpressionAst')) {
        $name = $node.VariablePath.UserPath -replace '^(script|using):', ''
        $up = $node.Parent
        while ($up -is [AttributedExpressionAst]) { $up = $up.Parent }
        if ($node.Parent -is [ParameterAst]) { continue }
        if ($up -is [AssignmentStatementAst] -and $up.Operator -eq 'Equals' -and $up.Left.Extent.StartOffset -le $node.Extent.StartOffset -and $up.Left.Extent.EndOffset -ge $node.Extent.EndOffset) { $writes[$name] = $node } else { $reads[$name] = $true }
    }
    $whole = $script:Script.Ast.Extent.Text -match '\$PSBoundParameters'
    foreach ($scope in @($script:Script.Ast) + @($script:Script.Functions.Values)) {
        foreach ($parameter in (Get-OwnParameter $scope)) {
            $name = $parameter.Name.VariablePath.UserPath
            if (-not $reads.ContainsKey($name) -and -not $whole) { Add-Finding -Rule 'Unused' -At $parameter -Message "the parameter -$name is never read" }
        }
    }
    foreach ($name in $writes.Keys) {
        if ($reads.ContainsKey($name) -or $name -match 'Preference$' -or $name -eq 'null' -or $name -match ':') { continue }
        Add-Finding -Rule 'Unused' -At $writes[$name] -Message "`$$name is written and never read"
    }
    foreach ($name in $script:Script.Functions.Keys) {
        if (-not $script:Script.Calls.ContainsKey($name) -and -not (Test-InRegion -Node $script:Script.Functions[$name])) { Add-Finding -Rule 'Unused' -At $script:Script.Functions[$name] -Message "the function $name is never called" }
    }
}
