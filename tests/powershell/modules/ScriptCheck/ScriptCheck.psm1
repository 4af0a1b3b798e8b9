using namespace System.Management.Automation.Language

# Static checks of a connector script over PowerShell's own parser: what it calls, what Windows PowerShell 5.1 has, its shape.
# Get-ScriptFinding gives an object for each finding: Rule, Line, Message. A rule's name is what its test names.

Set-StrictMode -Version 2.0

$script:Table = Get-Content -LiteralPath (Join-Path $PSScriptRoot '../../cmdlets.json') -Raw | ConvertFrom-Json -AsHashtable
$script:Builtin = (Get-Content -LiteralPath (Join-Path $PSScriptRoot '../../builtin.json') -Raw | ConvertFrom-Json -AsHashtable).commands
. (Join-Path $PSScriptRoot 'Value.ps1')
. (Join-Path $PSScriptRoot 'Call.ps1')
. (Join-Path $PSScriptRoot 'Text.ps1')
. (Join-Path $PSScriptRoot 'Shape.ps1')
. (Join-Path $PSScriptRoot 'Folder.ps1')

# All findings in one script. -Name: its file name, -Bytes: the file.
function Get-ScriptFinding {
    param([Parameter(Mandatory = $true)][string]$Name, [Parameter(Mandatory = $true)][byte[]]$Bytes)
    $tokens = $null
    $errors = $null
    $text = [System.Text.Encoding]::UTF8.GetString($Bytes)
    $ast = [Parser]::ParseInput($text, [ref]$tokens, [ref]$errors)
    $script:Script = @{
        Name = $Name; Bytes = $Bytes; Text = $text; Ast = $ast; Tokens = $tokens; Nodes = @{}; Functions = @{}; Calls = @{}; Facts = @{}
        Findings = New-Object System.Collections.ArrayList; Context = @{}; Active = @{}; Known = @{}; Circle = $false; Writes = @{}
    }
    foreach ($problem in $errors) { Add-Finding -Rule 'Syntax' -At $problem -Message $problem.Message }
    foreach ($node in $ast.FindAll({ $true }, $true)) {
        $kind = $node.GetType().Name
        if (-not $script:Script.Nodes.ContainsKey($kind)) { $script:Script.Nodes[$kind] = New-Object System.Collections.ArrayList }
        [void]$script:Script.Nodes[$kind].Add($node)
        if ($kind -eq 'FunctionDefinitionAst') { $script:Script.Functions[$node.Name] = $node }
    }
    foreach ($call in (Get-Node 'CommandAst')) {
        $called = $call.GetCommandName()
        if (-not $called) { continue }
        if (-not $script:Script.Calls.ContainsKey($called)) { $script:Script.Calls[$called] = New-Object System.Collections.ArrayList }
        [void]$script:Script.Calls[$called].Add($call)
    }
    $script:Script.Writes = Get-Write
    Test-Text
    if ($errors.Count -eq 0) {
        Test-Version
        Test-Call
        Test-Shape
    }
    $script:Script.Findings | Sort-Object -Property Line, Rule
}

function Get-Node {
    param([string]$Kind)
    if ($script:Script.Nodes.ContainsKey($Kind)) { $script:Script.Nodes[$Kind] }
}

# -At: anything with an Extent, or a line number.
function Add-Finding {
    param([string]$Rule, $At, [string]$Message)
    $line = $At
    if ($At -isnot [int]) { $line = $At.Extent.StartLineNumber }
    [void]$script:Script.Findings.Add([pscustomobject]@{ Script = $script:Script.Name; Rule = $Rule; Line = $line; Message = $Message })
}

# The function a node stands in, or the script.
function Get-Scope {
    param($Node)
    $up = $Node.Parent
    while ($null -ne $up -and $up -isnot [FunctionDefinitionAst]) { $up = $up.Parent }
    if ($null -eq $up) { return $script:Script.Ast }
    $up
}

# The parameters of a function or of the script.
function Get-OwnParameter {
    param($Scope)
    $block = $Scope
    if ($Scope -is [FunctionDefinitionAst]) {
        if ($null -ne $Scope.Parameters) { return $Scope.Parameters }
        $block = $Scope.Body
    }
    if ($null -ne $block.ParamBlock) { $block.ParamBlock.Parameters }
}

Export-ModuleMember -Function 'Get-ScriptFinding', 'Get-FolderFinding'
