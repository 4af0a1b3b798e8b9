using namespace System.Management.Automation.Language

# What a value can be, as far as the text of a script says: which keys a hashtable can have, which texts a variable can hold.
# Followed: literals, variables and what is added to them later, parameters of the script's own functions through their calls,
# what these functions give back. What cannot be followed is Unknown, and a call built of it is a finding.

# Keys: key -> expressions of its values. Texts: constant texts. Unknown: something else may come in.
function New-Value { @{ Keys = @{}; Texts = New-Object System.Collections.ArrayList; Unknown = $false; Constant = $false } }

function Join-Value {
    param($Into, $From)
    foreach ($key in $From.Keys.Keys) {
        if (-not $Into.Keys.ContainsKey($key)) { $Into.Keys[$key] = New-Object System.Collections.ArrayList }
        foreach ($one in $From.Keys[$key]) { if (-not $Into.Keys[$key].Contains($one)) { [void]$Into.Keys[$key].Add($one) } }
    }
    foreach ($text in $From.Texts) { if (-not $Into.Texts.Contains($text)) { [void]$Into.Texts.Add($text) } }
    if ($From.Unknown) { $Into.Unknown = $true }
    if ($From.Constant) { $Into.Constant = $true }
}

function Add-Key {
    param($Value, [string]$Key, $Expression)
    if (-not $Value.Keys.ContainsKey($Key)) { $Value.Keys[$Key] = New-Object System.Collections.ArrayList }
    [void]$Value.Keys[$Key].Add($Expression)
}

function Get-Value {
    param($Node)
    $value = New-Value
    if ($null -eq $Node) { return $value }
    switch ($Node.GetType().Name) {
        'StringConstantExpressionAst' { [void]$value.Texts.Add($Node.Value) }
        'ConstantExpressionAst' { $value.Constant = $true }
        'HashtableAst' {
            foreach ($pair in $Node.KeyValuePairs) {
                $key = Get-Value $pair.Item1
                if ($key.Unknown -or $key.Texts.Count -eq 0) { $value.Unknown = $true }
                foreach ($text in $key.Texts) { Add-Key -Value $value -Key $text -Expression $pair.Item2 }
            }
        }
        'ConvertExpressionAst' { $value = Get-Value $Node.Child }
        'ParenExpressionAst' { $value = Get-Value $Node.Pipeline }
        'CommandExpressionAst' { $value = Get-Value $Node.Expression }
        'StatementBlockAst' { foreach ($one in $Node.Statements) { Join-Value -Into $value -From (Get-Value $one) } }
        'SubExpressionAst' { $value = Get-Value $Node.SubExpression }
        'ArrayExpressionAst' { $value = Get-Value $Node.SubExpression }
        'ArrayLiteralAst' { foreach ($one in $Node.Elements) { Join-Value -Into $value -From (Get-Value $one) } }
        'IfStatementAst' {
            foreach ($clause in $Node.Clauses) { Join-Value -Into $value -From (Get-Value $clause.Item2) }
            if ($null -ne $Node.ElseClause) { Join-Value -Into $value -From (Get-Value $Node.ElseClause) }
        }
        'PipelineAst' { $value = Get-PipelineValue $Node ($Node.PipelineElements.Count - 1) }
        'BinaryExpressionAst' {
            if ($Node.Operator -eq 'Plus') {
                Join-Value -Into $value -From (Get-Value $Node.Left)
                Join-Value -Into $value -From (Get-Value $Node.Right)
            } else { $value.Unknown = $true }
        }
        'VariableExpressionAst' { $value = Get-VariableValue $Node }
        'MemberExpressionAst' { $value = Get-MemberValue $Node.Expression (Get-Value $Node.Member) }
        'IndexExpressionAst' { $value = Get-MemberValue $Node.Target (Get-Value $Node.Index) }
        'InvokeMemberExpressionAst' {
            if ($Node.Member.Extent.Text -match '^(Clone|GetEnumerator|ToArray)$') { $value = Get-Value $Node.Expression } else { $value.Unknown = $true }
        }
        'CommandAst' {
            $name = $Node.GetCommandName()
            if ($name -and $script:Script.Functions.ContainsKey($name)) { $value = Get-OutputValue $script:Script.Functions[$name] }
            else { $value.Unknown = $true }
        }
        default { $value.Unknown = $true }
    }
    $value
}

# What comes out of a pipeline after its element number $Last.
function Get-PipelineValue {
    param($Pipeline, [int]$Last)
    $value = New-Value
    if ($Last -lt 0) { return $value }
    $element = $Pipeline.PipelineElements[$Last]
    if ($element -is [CommandAst] -and $Last -gt 0) {
        if ('Where-Object', 'Sort-Object', 'Select-Object' -contains $element.GetCommandName()) { return (Get-PipelineValue $Pipeline ($Last - 1)) }
        if ($element.GetCommandName() -eq 'ForEach-Object') {
            foreach ($part in $element.CommandElements) { if ($part -is [ScriptBlockExpressionAst]) { return (Get-OutputValue $part.ScriptBlock) } }
        }
    }
    Get-Value $element
}

# What a function or script block writes: its return statements and the expressions that stand alone.
function Get-OutputValue {
    param($Function)
    $value = New-Value
    $key = 'out:' + $Function.Extent.StartOffset
    if ($script:Script.Active.ContainsKey($key)) { $script:Script.Circle = $true; return $value }
    $script:Script.Active[$key] = $true
    $body = $Function
    if ($Function -is [FunctionDefinitionAst]) { $body = $Function.Body }
    foreach ($node in $body.FindAll({ param($n) $n -is [ReturnStatementAst] -or $n -is [PipelineAst] }, $false)) {
        if ($node -is [ReturnStatementAst]) { Join-Value -Into $value -From (Get-Value $node.Pipeline); continue }
        if ($node.Parent -isnot [NamedBlockAst] -and $node.Parent -isnot [StatementBlockAst]) { continue }
        if ($node.Parent.Parent -is [SubExpressionAst] -or $node.Parent.Parent -is [ArrayExpressionAst]) { continue }
        if ($node.PipelineElements[0] -is [CommandExpressionAst] -and $node.PipelineElements[0].Expression -isnot [InvokeMemberExpressionAst]) {
            Join-Value -Into $value -From (Get-Value $node)
        }
    }
    $script:Script.Active.Remove($key)
    $value
}

# The value under a key: of all keys when the key is not known. '.Keys' and '.Key' are the keys themselves.
function Get-MemberValue {
    param($Target, $Key)
    $value = New-Value
    $table = Get-Value $Target
    if ($table.Unknown) { $value.Unknown = $true }
    $names = @($Key.Texts)
    if ($names.Count -eq 0) { $names = @($table.Keys.Keys) }
    foreach ($name in $names) {
        if ($table.Keys.ContainsKey($name)) { foreach ($one in $table.Keys[$name]) { Join-Value -Into $value -From (Get-Value $one) } }
        elseif ('Keys', 'Key', 'Name' -contains $name -and $table.Keys.Count -gt 0) { foreach ($one in $table.Keys.Keys) { [void]$value.Texts.Add($one) } }
        elseif ($name -eq 'Value') { foreach ($list in $table.Keys.Values) { foreach ($one in $list) { Join-Value -Into $value -From (Get-Value $one) } } }
        else { $value.Unknown = $true }
    }
    $value
}

function Get-VariableValue {
    param($Variable)
    $value = New-Value
    $name = $Variable.VariablePath.UserPath -replace '^script:', ''
    if ('true', 'false', 'null' -contains $name) { $value.Constant = $true; return $value }
    if ('_', 'PSItem' -contains $name) { return (Get-ItemValue $Variable) }
    $scope = Get-Scope $Variable
    if ($Variable.VariablePath.UserPath -match '^script:') { $scope = $script:Script.Ast }
    if ($name -eq 'PSBoundParameters') {
        foreach ($parameter in (Get-OwnParameter $scope)) { Add-Key -Value $value -Key $parameter.Name.VariablePath.UserPath -Expression $parameter.Name }
        return $value
    }
    $key = $name + '@' + $scope.Extent.StartOffset
    if ($script:Script.Active.ContainsKey($key)) { $script:Script.Circle = $true; return $value }
    $context = ''
    foreach ($one in $script:Script.Context.Keys) { $context = $one + $script:Script.Context[$one].Extent.StartOffset }
    $known = $key + '@' + $context
    if ($script:Script.Known.ContainsKey($known)) { return $script:Script.Known[$known] }
    # What is found inside a circle is not the whole, and is not kept.
    $outer = $script:Script.Circle
    $script:Script.Circle = $false
    $script:Script.Active[$key] = $true
    $found = Join-Assignment -Value $value -Name $name -Scope $scope
    foreach ($parameter in (Get-OwnParameter $scope)) {
        if ($parameter.Name.VariablePath.UserPath -ne $name) { continue }
        $found = $true
        if ($scope -isnot [FunctionDefinitionAst]) { $value.Unknown = $true; continue }
        if ($null -ne $parameter.DefaultValue) { Join-Value -Into $value -From (Get-Value $parameter.DefaultValue) }
        $calls = @($script:Script.Calls[$scope.Name])
        if ($script:Script.Context.ContainsKey($scope.Name)) { $calls = @($script:Script.Context[$scope.Name]) }
        foreach ($call in $calls) {
            if ($null -eq $call) { continue }
            foreach ($argument in (Get-Argument -Call $call -Name $name)) { Join-Value -Into $value -From (Get-Value $argument) }
        }
    }
    if (-not $found -and $scope -ne $script:Script.Ast) { $found = Join-Assignment -Value $value -Name $name -Scope $script:Script.Ast }
    if (-not $found) { $value.Unknown = $true }
    $script:Script.Active.Remove($key)
    if ($script:Script.Active.Count -eq 0) { $script:Script.Circle = $false }
    if (-not $script:Script.Circle) { $script:Script.Known[$known] = $value }
    $script:Script.Circle = $script:Script.Circle -or $outer
    $value
}

# What is assigned to a variable in a scope, and added to it: $v = ..; $v['K'] = ..; $v.K = ..; $v.Add('K', ..); foreach ($v in ..).
function Join-Assignment {
    param($Value, [string]$Name, $Scope)
    $found = $false
    if (-not $script:Script.Writes.ContainsKey($Name)) { return $false }
    foreach ($write in $script:Script.Writes[$Name]) {
        if ($write.Scope -ne $Scope) { continue }
        if ($null -ne $write.Key) { Join-KeyAssignment -Value $Value -Key $write.Key -Expression $write.Expression; continue }
        if ($write.Whole) { $found = $true }
        Join-Value -Into $Value -From (Get-Value $write.Expression)
    }
    $found
}

# Every place of the script that writes to a variable, by the variable's name.
function Get-Write {
    $all = @{}
    $add = {
        param($Target, $Node, $Key, $Expression, [bool]$Whole)
        if ($Target -isnot [VariableExpressionAst]) { return }
        $name = $Target.VariablePath.UserPath -replace '^script:', ''
        if (-not $all.ContainsKey($name)) { $all[$name] = New-Object System.Collections.ArrayList }
        [void]$all[$name].Add(@{ Scope = (Get-Scope $Node); Key = $Key; Expression = $Expression; Whole = $Whole })
    }
    foreach ($node in (Get-Node 'AssignmentStatementAst')) {
        $left = $node.Left
        while ($left -is [AttributedExpressionAst]) { $left = $left.Child }
        if ($left -is [IndexExpressionAst]) { & $add $left.Target $node $left.Index $node.Right $false }
        elseif ($left -is [MemberExpressionAst]) { & $add $left.Expression $node $left.Member $node.Right $false }
        else { & $add $left $node $null $node.Right $true }
    }
    foreach ($node in (Get-Node 'InvokeMemberExpressionAst')) {
        if ($node.Member.Extent.Text -ne 'Add') { continue }
        if (@($node.Arguments).Count -eq 2) { & $add $node.Expression $node $node.Arguments[0] $node.Arguments[1] $false }
        elseif (@($node.Arguments).Count -eq 1) { & $add $node.Expression $node $null $node.Arguments[0] $false }
    }
    foreach ($node in (Get-Node 'ForEachStatementAst')) { & $add $node.Variable $node $null $node.Condition $true }
    $all
}

# One key: the expression is its value. Several keys (the variable of a loop): each keeps its own value when the expression is
# the same key of another table, else nothing is known of the values.
function Join-KeyAssignment {
    param($Value, $Key, $Expression)
    $names = Get-Value $Key
    if ($names.Unknown -or ($names.Texts.Count -eq 0 -and -not $names.Constant)) { $Value.Unknown = $true }
    if ($names.Texts.Count -eq 1) { Add-Key -Value $Value -Key $names.Texts[0] -Expression $Expression; return }
    $inner = Get-Inner $Expression
    $table = $null
    if ($inner -is [IndexExpressionAst] -and $inner.Index.Extent.Text -eq $Key.Extent.Text) { $table = Get-Value $inner.Target }
    elseif ($inner -is [MemberExpressionAst] -and $inner -isnot [InvokeMemberExpressionAst]) {
        if ($inner.Member.Extent.Text -eq $Key.Extent.Text) { $table = Get-Value $inner.Expression }
        elseif ($inner.Member.Extent.Text -eq 'Value' -and $Key -is [MemberExpressionAst] -and $Key.Expression.Extent.Text -eq $inner.Expression.Extent.Text) { $table = Get-Value $inner.Expression }
    }
    foreach ($text in $names.Texts) {
        if ($null -ne $table -and $table.Keys.ContainsKey($text)) { foreach ($one in $table.Keys[$text]) { Add-Key -Value $Value -Key $text -Expression $one } }
        else { Add-Key -Value $Value -Key $text -Expression $null }
    }
}

# The expression in a statement that is nothing but an expression.
function Get-Inner {
    param($Node)
    if ($Node -is [PipelineAst] -and $Node.PipelineElements.Count -eq 1) { $Node = $Node.PipelineElements[0] }
    if ($Node -is [CommandExpressionAst]) { $Node = $Node.Expression }
    $Node
}

# $_ in a block of Where-Object or ForEach-Object: what the element before it writes.
function Get-ItemValue {
    param($Variable)
    $up = $Variable
    while ($null -ne $up) {
        if ($up -is [ScriptBlockExpressionAst] -and $up.Parent -is [CommandAst] -and $up.Parent.Parent -is [PipelineAst]) {
            $pipeline = $up.Parent.Parent
            return (Get-PipelineValue $pipeline ($pipeline.PipelineElements.IndexOf($up.Parent) - 1))
        }
        $up = $up.Parent
    }
    $value = New-Value
    $value.Unknown = $true
    $value
}
